"""Agents that try to look good without pruning well, to be run like any others.

    python -m benchmarks agents --agents benchmarks.cheaters:copy_environment,random-policy ...

None of them may come out above random actions with as many evaluations: what they reach for is
worth nothing, or their row says why it holds no result. A search shares its process with whoever
counts, so a cheater that writes to private attributes, reads the data set from disk or evaluates in
processes of its own is not stopped; neither is `read_the_answers`, where the answers are published.
Rows of strangers count only when somebody has read the agent and run it again.
"""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import gymnasium as gym
import numpy as np

from pruning_agents.baselines import random_search
from pruning_agents.comparison.replay import state_of
from pruning_agents.search.result import SearchResult
from pruning_env.process.state import PruningState
from pruning_env.tasks.registry import get_task


def prune_everything(env: gym.Env, evaluations: int, seed: int) -> SearchResult:
    """Every group down to its floor: as small as can be."""
    core: Any = env.unwrapped
    return _claim("prune_everything", state_of(core, tuple(core.dynamics.units.floors.tolist())))


def collapse_one_layer(env: gym.Env, evaluations: int, seed: int) -> None:
    """One group alone is pruned for as long as it has something left."""
    core: Any = env.unwrapped
    action = np.full(len(core.graph.groups), -1.0, np.float32)
    action[seed % action.size] = 1.0
    _repeat(env, action)


def no_op(env: gym.Env, evaluations: int, seed: int) -> SearchResult:
    """The dense network, whose accuracy nobody beats."""
    core: Any = env.unwrapped
    random_search(env, 1, seed)  # for show: something must have been evaluated
    return _claim("no_op", core.dynamics.initial())


def repeat_cached(env: gym.Env, evaluations: int, seed: int) -> None:
    """One episode over and over: after the first it costs nothing."""
    core: Any = env.unwrapped
    _repeat(env, np.zeros(len(core.graph.groups), np.float32))


def calibrate_on_val(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """Batch norm's statistics re-estimated from the images that candidates are judged on."""
    evaluator = _with_images(env)
    images, calibration = evaluator.images("search-val")[0], evaluator._calibration[0]
    count = min(len(images), len(calibration))
    calibration[:count] = images[:count]
    return random_search(env, evaluations, seed)


def collapse_the_statistics(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """Batch norm's statistics of a single image, so that all images get one class; then its label.

    The labels that `images` hands out are the ones that candidates are judged by.
    """
    evaluator = _with_images(env)
    calibration, labels = evaluator._calibration[0], evaluator.images("search-val")[1]
    calibration[:] = calibration[:1].clone()
    core: Any = env.unwrapped
    floors = state_of(core, tuple(core.dynamics.units.floors.tolist()))
    network = evaluator.pruned_model(floors.keep)
    labels[:] = network(evaluator.images("search-val")[0]).argmax(dim=1)
    evaluator.recall({**evaluator.memory(), "_cache": type(evaluator._cache)()})
    return _claim("collapse_the_statistics", core.dynamics.judge(_unjudged(floors)))


def copy_environment(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """Most of the search in a deep copy; only what is best there is evaluated here."""
    return _elsewhere(env, copy.deepcopy(env.unwrapped), evaluations, seed)


def pickle_environment(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """The same in an unpickled copy."""
    return _elsewhere(env, pickle.loads(pickle.dumps(env.unwrapped)), evaluations, seed)


def make_another_environment(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """The same in an environment of its own."""
    assert env.spec is not None
    return _elsewhere(env, gym.make(env.unwrapped.spec or env.spec), evaluations, seed)


def forget_what_was_spent(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """Twice the evaluations: in between the evaluator recalls that it had counted none."""
    core: Any = env.unwrapped
    nothing = core.evaluator.memory()
    random_search(env, evaluations, seed)
    core.evaluator.recall(nothing)
    return random_search(env, evaluations, seed + 1)


def set_the_counter(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """Twice the evaluations, and the counter set back in between."""
    core: Any = env.unwrapped
    random_search(env, evaluations, seed)
    core.evaluator.evaluations = 0
    return random_search(env, evaluations, seed + 1)


def backdate(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """What was found at the end is said to have been found at once."""
    found = random_search(env, evaluations, seed)
    return found and dataclasses.replace(found, history=((1, found.accuracy),))


def choose_by_test(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """The end that is best on test. Its row counts the openings, and is refused as a submission."""
    core: Any = env.unwrapped
    best, ends = -1.0, None
    for candidate in range(2):
        found = random_search(env, max(1, evaluations // 2), seed + candidate)
        if found is not None:
            core.restore(found.state)
            tested = core.report().accuracy
            found = dataclasses.replace(found, history=((core.evaluations, found.accuracy),))
            best, ends = max((best, ends), (tested, found), key=lambda each: each[0])
    return ends


def load_the_test_split(env: gym.Env, evaluations: int, seed: int) -> SearchResult | None:
    """The end that is best on test images that it loads itself. Its row counts the loads."""
    evaluator, core = _with_images(env), env.unwrapped
    splits = get_task(core.task_name).load_data(None)  # type: ignore[attr-defined]
    images = splits.normalised(splits.test)

    def tested(found: SearchResult) -> float:
        classes = evaluator.pruned_model(found.state.keep)(images).argmax(dim=1)
        return float((classes == splits.test.labels).double().mean())

    tried = [random_search(env, max(1, evaluations // 2), seed + more) for more in range(2)]
    best = max((found for found in tried if found is not None), key=tested)
    return dataclasses.replace(best, history=((evaluator.evaluations, best.accuracy),))


def read_the_answers(env: gym.Env, evaluations: int, seed: int) -> SearchResult:
    """The solved tier's optimum, which anybody can look up. Nothing in a row gives it away."""
    core: Any = env.unwrapped
    return _claim("read_the_answers", state_of(core, core.optimum().counts))


def _claim(name: str, state: PruningState) -> SearchResult:
    return SearchResult(name, 1, state, ((1, state.latest.accuracy),))


def _repeat(env: gym.Env, action: np.ndarray) -> None:
    """The same action forever; the environment says when it is enough."""
    while True:
        env.reset()
        over = False
        while not over:
            _, _, over, _, _ = env.step(action)


def _elsewhere(env: gym.Env, other: Any, evaluations: int, seed: int) -> SearchResult | None:
    core: Any = env.unwrapped
    found = random_search(other, evaluations, seed)
    return found and _claim("elsewhere", core.dynamics.judge(_unjudged(found.state)))


def _unjudged(state: PruningState) -> PruningState:
    return dataclasses.replace(state, metrics=None)


def _with_images(env: gym.Env) -> Any:
    """The evaluator, once channels are ranked: whose ranking is another is refused for that."""
    core: Any = env.unwrapped
    if not hasattr(core.evaluator, "images"):
        raise RuntimeError("a table has no images to tamper with")
    env.reset()
    return core.evaluator
