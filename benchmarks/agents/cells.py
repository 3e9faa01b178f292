"""One cell: an agent, a task and a seed make a row.

The environment counts what is spent, and an environment of its own judges what comes out, so that
nothing that an agent says of itself is written down unchecked. Nothing here compares agents.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm

import pruning_env  # noqa: F401  (registers the environments)
from agents.registry import AgentEntry, Search, get_agent
from agents.result import SearchResult
from agents.rows import Provenance
from benchmarks.agents.rows import AgentRow, Anchors, CellKey, FinalPolicy, settings_text
from pruning_env.dynamics import PruningState
from pruning_env.env import CNNPruneEnv
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks import task_names

#: The task of which everything is known, `CNNPruneTabular-v0`.
TABULAR = "tabular"

#: Judged together with others, or alone: floating point may turn an image or two.
_SAME_ACCURACY = 2e-3


@dataclass(frozen=True)
class Cell:
    """What to run.

    Attributes:
        task: "tabular", or a registered task.
        settings: keyword arguments of the environment.
        agent: as for `resolve_agent`.
        seed: of the search.
        evaluations: that it may spend.
    """

    task: str
    settings: dict[str, Any]
    agent: str
    seed: int
    evaluations: int

    @property
    def key(self) -> CellKey:
        """That of the row it makes."""
        return CellKey(
            self.task, settings_text(self.settings), self.agent, self.seed, self.evaluations
        )


def resolve_agent(name: str) -> AgentEntry:
    """The registered agent of that name, or the function at "module:name".

    Such a function is called as `function(env, evaluations, seed, progress_bar=False)` and returns
    a `SearchResult`, or a `Search` if a policy is left behind, or None if nothing feasible was
    found.

    Raises:
        ValueError: if there is neither; the message says which are registered, or what is missing.
    """
    if ":" not in name:
        return get_agent(name)
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"agent={name!r} cannot be imported: {error}") from error
    if not callable(function):
        raise ValueError(f"agent={name!r} is a {type(function).__name__}, which cannot be called")

    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        found = function(env, evaluations, seed, progress_bar=progress_bar)
        if found is None or isinstance(found, SearchResult):
            return Search(found)
        if isinstance(found, Search):
            return found
        raise TypeError(
            f"{name} returned a {type(found).__name__}; return a SearchResult, a Search or None"
        )

    return AgentEntry(name, f"the function {attribute} of {module}", search)


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

    Args:
        cell: what to run.
        provenance: of the run that the cell belongs to; the row has its own time.

    Raises:
        ValueError: as `resolve_agent` and `make_env`.
    """
    entry = resolve_agent(cell.agent)
    env, judge = make_env(cell.task, cell.settings), _core(make_env(cell.task, cell.settings))
    start = time.perf_counter()
    failed, search = "", Search(None)
    try:
        search = entry.search(env, cell.evaluations, cell.seed, False)
    except Exception as error:  # whatever a guest raises is its result
        failed = f"{type(error).__name__}: {error}"
    wall_seconds = time.perf_counter() - start
    spent = _core(env).evaluations
    env.close()
    result = search.result
    final = None
    if not failed:
        failed = _objection(judge, result, spent, cell.evaluations)
    if not failed and search.algorithm is not None:
        try:
            final = final_policy(judge, search.algorithm, cell.seed)
        except Exception as error:  # the same guest
            failed = f"final policy: {type(error).__name__}: {error}"
    state = None if failed or result is None else result.state
    return AgentRow(
        agent=cell.agent,
        task=cell.task,
        settings=cell.settings,
        seed=cell.seed,
        seeded=entry.seeded,
        allowed=cell.evaluations,
        spent=spent,
        history=result.history if state is not None and result is not None else (),
        feasible=state is not None,
        counts=None if state is None else tuple(int(count) for count in state.counts),
        val_accuracy=None if state is None else state.latest.accuracy,
        params=None if state is None else int(judge.graph.params(state.keep)),
        params_ratio=None if state is None else state.params,
        macs=None if state is None else int(judge.graph.macs(state.keep)),
        macs_ratio=None if state is None else state.macs,
        final=None if failed else final,
        anchors=_anchors(judge),
        failed=failed,
        wall_seconds=wall_seconds,
        provenance=dataclasses.replace(
            provenance, created=datetime.now(timezone.utc).isoformat(timespec="seconds")
        ),
    )


def final_policy(env: CNNPruneEnv, algorithm: BaseAlgorithm, seed: int) -> FinalPolicy:
    """One episode of the deterministic policy in `env`, which is not the one that was searched."""
    normaliser = algorithm.get_vec_normalize_env()
    observation, info = env.reset(seed=seed)
    over = False
    while not over:
        seen = observation if normaliser is None else normaliser.normalize_obs(observation)
        action, _ = algorithm.predict(seen, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    state = env.state()
    counts = tuple(int(count) for count in state.counts)
    return FinalPolicy(float(info["accuracy"]), bool(info["is_success"]), counts)


def _objection(judge: CNNPruneEnv, result: SearchResult | None, spent: int, allowed: int) -> str:
    """What is wrong with a result, "" if nothing is."""
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
    if abs(judged.latest.accuracy - claimed) > _SAME_ACCURACY:
        return f"incumbent has accuracy {judged.latest.accuracy}, not {claimed}"
    return ""


def _judged_again(judge: CNNPruneEnv, state: PruningState) -> PruningState:
    """`state`, judged by another environment; trained weights cannot be trained again alike."""
    forgotten = state if state.weights is not None else dataclasses.replace(state, metrics=None)
    return judge.dynamics.check(forgotten)


def _core(env: gym.Env) -> CNNPruneEnv:
    core = env.unwrapped
    assert isinstance(core, CNNPruneEnv)
    return core


def _anchors(env: CNNPruneEnv) -> Anchors | None:
    """Where every configuration is known."""
    if not isinstance(env, CNNPruneTabularEnv):
        return None
    return Anchors(env.optimum().accuracy, env.solution.random_accuracy())
