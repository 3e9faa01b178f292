"""One cell: an agent, a task and a seed make a row.

The environment counts what is spent, and an environment of its own judges what comes out, so that
nothing that an agent says of itself is written down unchecked. Nothing here compares agents.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import gymnasium as gym

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents.comparison.origin import origin_of
from pruning_agents.comparison.rows import (
    TABULAR,
    AgentRow,
    Anchors,
    CellKey,
    FinalPolicy,
    settings_text,
)
from pruning_agents.search.import_path import resolve_agent
from pruning_agents.search.recording import ViolationCounter
from pruning_agents.search.result import Search, SearchResult
from pruning_agents.search.rows import Provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.evaluator import measure
from pruning_env.evaluation.ledger import Meter
from pruning_env.process.dynamics import PruningState
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks.registry import task_names

#: Judged together with others, or alone: floating point may turn an image or two.
SAME_ACCURACY = 2e-3


@dataclass(frozen=True)
class Cell:
    """What to run.

    Attributes:
        task: "tabular", or a registered task.
        settings: keyword arguments of the environment.
        agent: as for `resolve_agent`.
        seed: of the search.
        evaluations: that it may spend.
        suite: that asks for it, if one does.
    """

    task: str
    settings: dict[str, Any]
    agent: str
    seed: int
    evaluations: int
    suite: str | None = None

    @property
    def key(self) -> CellKey:
        """That of the row it makes."""
        settings = settings_text(self.settings)
        return CellKey(self.task, settings, self.agent, self.seed, self.evaluations, self.suite)


def make_env(task: str, settings: Mapping[str, Any]) -> gym.Env:
    """A fresh environment, so that no search profits from what another has evaluated.

    Raises:
        ValueError: for an unknown task, or settings that the environment refuses.
    """
    if task == TABULAR:
        return _make("CNNPruneTabular-v0", dict(settings))
    if task not in task_names():
        known = ", ".join((TABULAR, *task_names()))
        raise ValueError(f"task={task!r} is not known; known: {known}")
    return _make("CNNPrune-v0", {"task": task, **settings})


def _make(env_id: str, settings: dict[str, Any]) -> gym.Env:
    try:
        return gym.make(env_id, **settings)
    except TypeError as error:
        raise ValueError(f"settings={settings!r}: {error}") from error


def run_cell(cell: Cell, provenance: Provenance) -> AgentRow:
    """Search, and describe what was found; an agent that raises gets a row that says so.

    Evaluations are counted for the whole process, so that an agent pays for what it evaluates in
    copies of its environment, and in environments that it makes itself. So a process runs one cell
    at a time; what an agent evaluates in other processes is not seen.

    Args:
        cell: what to run.
        provenance: of the run that the cell belongs to; the row has its own time.

    Raises:
        ValueError: as `pruning_agents.search.import_path.resolve_agent` and `make_env`.
    """
    entry = resolve_agent(cell.agent)
    judge = core(make_env(cell.task, cell.settings))
    env = ViolationCounter(make_env(cell.task, cell.settings))
    failed, search = "", Search(None)
    with Meter() as meter:
        start = time.perf_counter()
        try:
            search = entry.search(env, cell.evaluations, cell.seed, False)
        except Exception as error:  # whatever a guest raises is its result
            failed = f"{type(error).__name__}: {error}"
        wall_seconds = time.perf_counter() - start
    env.close()
    result = search.result
    final, test_accuracy = None, None
    if not failed:
        failed = _objection(judge, result, meter, cell.evaluations)
    if not failed and search.algorithm is not None:
        try:
            final = final_policy(judge, search.algorithm, cell.seed)
        except Exception as error:  # the same guest
            failed = f"final policy: {type(error).__name__}: {error}"
    state = None if failed or result is None else result.state
    if state is not None:
        judge.restore(state)
        test_accuracy = judge.report().accuracy
    limited = judge.dynamics.constraint.name == "cost"
    return AgentRow(
        agent=cell.agent,
        task=cell.task,
        settings=cell.settings,
        seed=cell.seed,
        seeded=entry.seeded,
        allowed=cell.evaluations,
        spent=meter.evaluations,
        history=result.history if state is not None and result is not None else (),
        feasible=state is not None,
        counts=None if state is None else tuple(int(count) for count in state.counts),
        val_accuracy=None if state is None else state.latest.accuracy,
        params=None if state is None else int(judge.graph.params(state.keep)),
        params_ratio=None if state is None else state.params,
        macs=None if state is None else int(judge.graph.macs(state.keep)),
        macs_ratio=None if state is None else state.macs,
        final=None if failed else final,
        anchors=anchors_of(judge),
        failed=failed,
        wall_seconds=wall_seconds,
        provenance=dataclasses.replace(
            provenance, created=datetime.now(timezone.utc).isoformat(timespec="seconds")
        ),
        test_accuracy=test_accuracy,
        test_openings=meter.test_openings + judge.evaluator.test_openings,
        cost=None if state is None else cost_of(judge, state),
        episodes=env.episodes if limited else None,
        violations=env.violations if limited else None,
        origin=origin_of(judge, cell.settings),
        image_passes=meter.image_passes,
        test_loads=meter.test_loads,
        ended=None if failed else search.why or None,
        suite=cell.suite,
    )


def cost_of(env: CNNPruneEnv, state: PruningState) -> float | None:
    """What an episode that ends in `state` costs; None where the budget is no limit on a cost."""
    if env.dynamics.constraint.name != "cost":
        return None
    return float(env.dynamics.constraint.cost(state.usage, env.dynamics.budgets))


def final_policy(env: CNNPruneEnv, algorithm: Any, seed: int) -> FinalPolicy:
    """One episode of the deterministic policy in `env`, which is not the one that was searched."""
    *_, (_, info) = play(env, algorithm, seed)
    state = env.state()
    counts = tuple(int(count) for count in state.counts)
    accuracy, feasible = float(info["accuracy"]), bool(info["is_success"])
    return FinalPolicy(accuracy, feasible, counts, cost_of(env, state))


def play(env: gym.Env, algorithm: Any, seed: int) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Actions of one episode of the deterministic policy, each with the info of its step."""
    wrapped = getattr(algorithm, "get_vec_normalize_env", None)  # not every guest's class has it
    normaliser = None if wrapped is None else wrapped()
    observation, _ = env.reset(seed=seed)
    over = False
    while not over:
        seen = observation if normaliser is None else normaliser.normalize_obs(observation)
        action, _ = algorithm.predict(seen, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
        yield action, info


def _objection(judge: CNNPruneEnv, result: SearchResult | None, meter: Meter, allowed: int) -> str:
    """What is wrong with a result, "" if nothing is."""
    spent = meter.evaluations
    if spent > allowed:
        return f"spent {spent} of {allowed} evaluations"
    if result is None:
        return ""
    claimed = result.state.latest.accuracy
    numbers, accuracies = zip(*result.history, strict=True) if result.history else ((), ())
    if not numbers or list(numbers) != sorted(numbers) or not 0 < numbers[-1] <= spent:
        return f"history is at {list(numbers)} evaluations, of {spent} that the environment counted"
    if list(accuracies) != sorted(accuracies) or accuracies[-1] != claimed:
        return f"history {list(accuracies)} does not rise to the incumbent's accuracy {claimed}"
    try:
        judged = _judged_again(judge, result.state)
    except ValueError as error:
        return f"incumbent: {error}"
    if not judge.dynamics.feasible(judged):
        return f"incumbent uses {judged.usage}, which does not meet the budget"
    if abs(judged.latest.accuracy - claimed) > SAME_ACCURACY:
        return f"incumbent has accuracy {judged.latest.accuracy}, not {claimed}"
    for number, accuracy in result.history:
        if not meter.seen(accuracy, number):
            return f"history has {accuracy} at {number}, when no network had had that accuracy yet"
    return ""


def _judged_again(judge: CNNPruneEnv, state: PruningState) -> PruningState:
    """`state`, judged by another environment; trained weights are taken as they are."""
    dynamics, evaluator = judge.dynamics, judge.evaluator
    if state.weights is None:
        # A lazy reward would leave it unjudged in the middle of an episode.
        return dynamics.judge(dynamics.check(dataclasses.replace(state, metrics=None)))
    network = evaluator.pruned_model(dynamics.check(state).keep, state.weights)
    images, labels = evaluator.images("search-val")
    metrics = measure(network, images, labels, evaluator.batch_size)
    return dataclasses.replace(state, metrics=metrics)


def core(env: gym.Env) -> CNNPruneEnv:
    """The environment itself, without wrappers."""
    core = env.unwrapped
    assert isinstance(core, CNNPruneEnv)
    return core


def anchors_of(env: CNNPruneEnv) -> Anchors | None:
    """Optimum and random policy, where every configuration is known."""
    if not isinstance(env, CNNPruneTabularEnv):
        return None
    return Anchors(env.optimum().accuracy, env.solution.random_accuracy())
