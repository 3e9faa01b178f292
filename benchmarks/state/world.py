"""The solved tier as arrays, for questions about all policies at once.

Successors by action, ends and accuracies of every configuration. Uses the environment's own step,
and knows nothing of policies.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import pruning_env  # noqa: F401  (registers the environments)
from pruning_env.tabular.env import CNNPruneTabularEnv

_CHUNK = 100_000  # splits at a time: some 50 MB


@dataclass(frozen=True)
class Case:
    """An episode that a policy is judged on.

    Attributes:
        start: index of the configuration that it starts from.
        limit: of parameters, relative to the dense network.
    """

    start: int
    limit: float


class World:
    """Deterministic pruning of `CNNPruneTabular-v0` with a few actions.

    Args:
        channels_per_step: as in the environment.
        recovery: as in the environment.

    Attributes:
        units: removed by a step.
        actions: (A, L): all vectors of -1 and 1 except that of -1 alone, which prunes as that of 1
            alone: by the same fraction everywhere.
        accuracy: (M,) on search-val.
        size: (M,) parameters / dense.
        left: (M, L) units above the floors.
        dense: index of the dense network.
    """

    def __init__(self, channels_per_step: float = 0.05, recovery: str = "bn") -> None:
        env = gym.make(
            "CNNPruneTabular-v0", channels_per_step=channels_per_step, recovery=recovery
        ).unwrapped
        assert isinstance(env, CNNPruneTabularEnv)
        self._env = env
        dynamics = env.dynamics
        self.units = dynamics.per_step // dynamics.units.round_to
        groups = len(dynamics.graph.groups)
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=groups)))
        self.actions: NDArray[np.float64] = signs[1:]
        self.accuracy: NDArray[np.float64] = env.evaluator.accuracy  # type: ignore[attr-defined]
        self.size = env.process.params
        self.left: NDArray[np.int64] = dynamics.units.left(env.process.counts)
        self.dense = len(self.size) - 1
        self.strides = env.table.strides
        self._next: NDArray[np.int32] = np.full(
            (len(self.size), len(self.actions)), -1, dtype=np.int32
        )

    def over(self, limit: float) -> NDArray[np.bool_]:
        """(M,) where an episode with this limit ends."""
        return (self.size <= limit) | self._env.process.exhausted

    def value(self, limit: float) -> NDArray[np.float64]:
        """(M,) accuracy of an end; 0 where the limit is not met."""
        return np.where(self.size <= limit, self.accuracy, 0.0)

    def regret(self, accuracy: NDArray[np.float64], limit: float) -> NDArray[np.float64]:
        """Normalised as everywhere: 0 is the optimum within the limit, 1 the random policy."""
        best = self._env.optimum({"params": limit}).accuracy
        random = self._env.solution.random_accuracy({"params": limit})
        return (best - accuracy) / (best - random)

    def explore(self, cases: tuple[Case, ...]) -> NDArray[np.int64]:
        """Indices of all places where an episode of a case can be, its ends included.

        From then on `follow` knows what every action does there.
        """
        known = np.zeros(len(self.size), dtype=np.bool_)
        for limit in dict.fromkeys(case.limit for case in cases):
            over = self.over(limit)
            found = np.zeros_like(known)
            front = np.unique([case.start for case in cases if case.limit == limit])
            while front.size:
                found[front] = True
                going_on = front[~over[front]]
                ends = np.unique(self._successors(going_on))
                front = ends[~found[ends]]
            known |= found
        return np.flatnonzero(known)

    def _successors(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """(N, A) indices after each action, computed once for each place."""
        new = places[self._next[places, 0] < 0] if places.size else places
        per_chunk = max(1, _CHUNK // len(self.actions))
        for begin in range(0, new.size, per_chunk):
            some = new[begin : begin + per_chunk]
            pairs = np.repeat(some, len(self.actions))
            moves = np.tile(self.actions, (some.size, 1))
            self._next[some] = self._env.process.successor(pairs, moves).reshape(some.size, -1)
        return self._next[places]

    def follow(self, places: NDArray[np.int64], actions: Any) -> NDArray[Any]:
        """Indices after action numbers, both broadcast, where `explore` has been."""
        return self._next[places, actions]

    def all_successors(self, places: NDArray[np.int64]) -> NDArray[Any]:
        """(N, A) indices after each action from places (N,), where `explore` has been."""
        return self._next[places]

    def any_split(self) -> NDArray[np.int64]:
        """(S, L) all ways to spread a step's units over the groups, whatever an action can say."""
        groups = self.left.shape[1]
        ways = itertools.combinations_with_replacement(range(groups), self.units)
        return np.array([np.bincount(way, minlength=groups) for way in ways])

    def partial_prunings(self, count: int, most_steps: int, seed: int) -> NDArray[np.int64]:
        """(count,) places that 0 to `most_steps` steps of random actions lead to.

        Each step has actions of its own, so the same seed gives the same places.
        """
        rng = np.random.default_rng(seed)
        places = np.full(count, self.dense)
        steps = rng.integers(most_steps + 1, size=count)
        for step in range(most_steps):
            actions = rng.uniform(-1.0, 1.0, (count, self.left.shape[1]))
            after = self._env.process.successor(places, actions)
            places = np.where(step < steps, after, places)
        return places
