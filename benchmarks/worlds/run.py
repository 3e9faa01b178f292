"""Trains the policies, and judges them, rules of thumb and searches on networks never seen.

All that is found is a row; what has one is left out, so a run that was killed goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import pruning_env  # noqa: F401  (registers the environments)
from benchmarks.worlds.rows import WorldRow, read_rows, row_key
from benchmarks.worlds.specification import POLICIES, RULES, Study, questions
from pruning_agents.proposals.rules import RULES as ACTIONS
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance, append_row
from pruning_agents.stock.groupwise import GroupwiseActorCriticPolicy
from pruning_agents.zero_shot.demonstrations import Question, collect
from pruning_agents.zero_shot.learning import imitate, improve
from pruning_agents.zero_shot.policy import (
    act,
    load_policy,
    make_policy,
    save_policy,
    worlds_of,
)
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.state import PruningState
from pruning_env.tasks.pools.storage import open_pool

__all__ = ["run"]

JUDGED = ("test", "unseen-families")


@dataclass(frozen=True)
class _Method:
    """One that prunes: its columns in a row, and how it prunes the running episode."""

    name: str
    learned_on: int
    evaluations: int
    seed: int
    prune: Callable[[gym.Env, NDArray[np.float32]], PruningState | None]


def run(
    study: Study,
    out: Path,
    origin: Provenance,
    *,
    progress: bool = False,
) -> Iterator[WorldRow]:
    """Answer all that has no row in `out` yet; demonstrations and policies are kept beside it.

    Args:
        study: What to compare.
        out: A file of JSON lines, made if needed.
        origin: What is written beside each row.
        progress: Whether to show bars.

    Yields:
        New rows, as they are written.

    Raises:
        ValueError: A policy beside `out` has learned from something else than is asked for.
    """
    done = read_rows(out)
    # A smaller pool is learned whole, and rows say how many networks that were.
    study = replace(study, train=min(study.train, len(open_pool("train"))))
    methods = [*_rules(), *_policies(study, out, origin, progress), *_searches(study)]
    for pool in JUDGED:
        env = gym.make("CNNPruneWorlds-v0", pool=pool)
        asked = list(questions(pool, study.judged, study.limits))
        for question in tqdm(asked, desc=pool, disable=not progress):
            for method in methods:
                key = row_key(
                    question, method.name, method.learned_on, method.evaluations, method.seed
                )
                if key not in done:
                    row = _judged(env, question, method, origin)
                    if row is not None:
                        append_row(out, row)
                        yield row


def _judged(
    env: gym.Env, question: Question, method: _Method, origin: Provenance
) -> WorldRow | None:
    """The row of a method; None where it found nothing within the budget."""
    if method.evaluations:
        # In an environment of its own: what others have judged, the cache would answer for nothing.
        env = gym.make("CNNPruneWorlds-v0", pool=question.pool)
    inside = worlds_of(env)
    observation, _ = env.reset(options=question.options)
    episode = inside.episode
    state = method.prune(env, observation)
    if state is None or not episode.dynamics.feasible(state):
        return None
    judged = episode.dynamics.judge(state)
    assert judged.metrics is not None
    return WorldRow(
        question=question,
        family=inside.family,
        method=method.name,
        learned_on=method.learned_on,
        evaluations=method.evaluations,
        seed=method.seed,
        counts=tuple(int(count) for count in judged.counts),
        val_accuracy=judged.metrics.accuracy,
        test_accuracy=episode.evaluator.certify(judged.keep, judged.weights).accuracy,
        dense_test_accuracy=episode.evaluator.certify_dense().accuracy,
        macs=judged.macs,
        provenance=origin,
    )


def _ended(episode: CNNPruneEnv, action: NDArray[np.floating]) -> PruningState:
    """What one action makes of the dense network; nothing is judged."""
    return episode.dynamics.apply(episode.state(), action)


def _rules() -> list[_Method]:
    def by(name: str) -> Callable[[gym.Env, NDArray[np.float32]], PruningState]:
        def prune(env: gym.Env, observation: NDArray[np.float32]) -> PruningState:
            episode = worlds_of(env).episode
            if name == "uniform-inner":
                action = np.array([-1.0 if g.summed else 1.0 for g in episode.graph.groups])
            else:
                action = ACTIONS[name].action(episode.dynamics)
            return _ended(episode, action)

        return prune

    return [_Method(name, 0, 0, 0, by(name)) for name in RULES]


def _searches(study: Study) -> list[_Method]:
    def by(name: str, evaluations: int, seed: int) -> Callable[..., PruningState | None]:
        def prune(env: gym.Env, observation: NDArray[np.float32]) -> PruningState | None:
            episode = worlds_of(env).episode
            result = get_agent(name).search(episode, evaluations, seed, False).result
            return None if result is None else result.state

        return prune

    return [
        _Method(name, 0, evaluations, seed, by(name, evaluations, seed))
        for name in study.searches
        for evaluations in study.evaluations
        for seed in range(study.seeds)
    ]


def _policies(study: Study, out: Path, origin: Provenance, progress: bool) -> list[_Method]:
    """Each trained, unless it was before."""
    if not study.train:
        return []
    env = gym.make(
        "CNNPruneWorlds-v0", networks=list(range(study.train)), budget={"macs": _range(study)}
    )
    methods = []
    for seed in range(study.seeds):
        for name in POLICIES:
            policy = _policy(name, seed, study, env, out, origin, progress)
            methods.append(_Method(name, study.train, 0, seed, _acting(policy)))
    return methods


def _acting(policy: GroupwiseActorCriticPolicy) -> Callable[..., PruningState]:
    def prune(env: gym.Env, observation: NDArray[np.float32]) -> PruningState:
        episode = worlds_of(env).episode
        return _ended(episode, act(policy, observation)[: len(episode.graph.groups)])

    return prune


def _policy(
    name: str,
    seed: int,
    study: Study,
    env: gym.Env,
    out: Path,
    origin: Provenance,
    progress: bool,
) -> GroupwiseActorCriticPolicy:
    folder = out.with_suffix("")
    path = folder / f"{name}-{study.train}-{seed}"
    lesson = _lesson(name, study)
    if path.with_suffix(".json").is_file():
        _check_lesson(path.with_suffix(".json"), lesson)
        return load_policy(path, env)
    if name == "imitation+ppo":
        policy = _policy("imitation", seed, study, env, out, origin, progress)
    else:
        policy = make_policy(env, seed=seed)
    if name == "imitation":
        asked = questions("train", study.train, study.limits)
        found = collect(
            env,
            asked,
            folder / "demonstrations.jsonl",
            origin,
            agent=study.demonstrator,
            evaluations=study.demonstrations,
            progress=progress,
        )
        imitate(policy, env, list(found), seed=seed, progress=progress)
    else:
        improve(policy, env, study.episodes, seed=seed, progress=progress)
    about = {"learned": name, "seed": seed, "study": lesson, "command": origin.command}
    save_policy(path, policy, about)
    return policy


def _lesson(name: str, study: Study) -> dict[str, Any]:
    """What a policy learned from, besides its seed and the networks; of JSON's types."""
    parts: dict[str, Any] = {"limits": list(study.limits)}
    if "imitation" in name:
        parts |= {"demonstrator": study.demonstrator, "demonstrations": study.demonstrations}
    if "ppo" in name:
        parts["episodes"] = study.episodes
    return parts


def _check_lesson(path: Path, asked: dict[str, Any]) -> None:
    """Refuse a policy that learned otherwise: rows do not tell the two apart."""
    found = json.loads(path.read_text(encoding="utf-8")).get("study")
    if found != asked:
        raise ValueError(
            f"{path} is a policy that learned from {found}, not from {asked}; give the same, or "
            "another --out"
        )


def _range(study: Study) -> tuple[float, float]:
    return min(study.limits), max(study.limits)
