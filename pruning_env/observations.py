"""Observations: what an agent sees of a pruning state, as one flat bounded vector.

`GROUP_FEATURES` and `GLOBAL_FEATURES` are the whole definition: one row per number, with its range
and its function. Knows nothing of actions, rewards or episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from gymnasium import spaces

from pruning_env.arguments import check_choice
from pruning_env.importance import group_sensitivity

if TYPE_CHECKING:
    from pruning_env.budgets import Budget
    from pruning_env.channels import ChannelGraph
    from pruning_env.dynamics import PruningState
    from pruning_env.evaluator import Metrics


@dataclass(frozen=True)
class Scene:
    """What a feature may look at: the network, its dense importance, and one judged state."""

    graph: ChannelGraph
    budgets: tuple[Budget, ...]
    scores: np.ndarray
    floors: np.ndarray
    state: PruningState
    metrics: Metrics

    def saving(self, amounts: Callable[[np.ndarray], int | np.ndarray]) -> np.ndarray:
        """(L,) share of `amounts(counts)` that goes when one group alone shrinks to its floor."""
        counts = self.state.counts
        at_floor = np.where(np.eye(counts.size, dtype=bool), self.floors, counts)
        now = np.asarray(amounts(counts), dtype=np.float64)
        return 1.0 - np.asarray(amounts(at_floor), dtype=np.float64) / max(float(now), 1.0)


@dataclass(frozen=True)
class Feature:
    """One column of the group table, or one global: its range, and how it is computed."""

    name: str
    low: float
    high: float
    meaning: str
    compute: Callable[[Scene], np.ndarray]


def _sparsity(scene: Scene) -> np.ndarray:
    return 1.0 - scene.state.counts / scene.graph.sizes


def _sensitivity(scene: Scene) -> np.ndarray:
    return group_sensitivity(scene.graph, scene.scores, scene.state.keep)


def _params_share(scene: Scene) -> np.ndarray:
    return scene.saving(scene.graph.params_at)


def _macs_share(scene: Scene) -> np.ndarray:
    return scene.saving(scene.graph.macs_at)


def _width(scene: Scene) -> np.ndarray:
    return scene.state.counts / scene.graph.sizes.max()


def _dense_width(scene: Scene) -> np.ndarray:
    return scene.graph.sizes / scene.graph.sizes.max()


def _kernel(scene: Scene) -> np.ndarray:
    return _relative([group.kernel for group in scene.graph.groups])


def _stride(scene: Scene) -> np.ndarray:
    return _relative([group.stride for group in scene.graph.groups])


def _depth(scene: Scene) -> np.ndarray:
    return _relative([group.depth for group in scene.graph.groups])


def _last_action(scene: Scene) -> np.ndarray:
    return scene.state.last_action


def _accuracy(scene: Scene) -> np.ndarray:
    return np.array([scene.metrics.accuracy])


def _likelihood(scene: Scene) -> np.ndarray:
    return np.array([math.exp(-scene.metrics.loss)])


def _params(scene: Scene) -> np.ndarray:
    return np.array([scene.state.params])


def _macs(scene: Scene) -> np.ndarray:
    return np.array([scene.state.macs])


def _progress(scene: Scene) -> np.ndarray:
    removable = scene.graph.sizes - scene.floors
    return np.array([(scene.graph.sizes - scene.state.counts).sum() / removable.sum()])


def _over_budget(scene: Scene) -> np.ndarray:
    limits = [budget.limit for budget in scene.budgets]
    return np.array(scene.state.usage) - np.array(limits)


def _relative(values: list[int]) -> np.ndarray:
    """Scale non-negative numbers by the largest, so that they lie in [0, 1]."""
    return np.array(values, dtype=np.float64) / max(1, *values)


GROUP_FEATURES: tuple[Feature, ...] = (
    Feature("sparsity", 0, 1, "share of the group's channels removed", _sparsity),
    Feature("sensitivity", 0, 1, "share of the mean importance of kept channels", _sensitivity),
    Feature("params_share", 0, 1, "parameters that shrinking it to its floor saves", _params_share),
    Feature("macs_share", 0, 1, "MACs that shrinking it to its floor saves", _macs_share),
    Feature("width", 0, 1, "channels kept / widest group", _width),
    Feature("dense_width", 0, 1, "channels in the dense network / widest group", _dense_width),
    Feature("kernel", 0, 1, "kernel size / largest", _kernel),
    Feature("stride", 0, 1, "stride / largest", _stride),
    Feature("depth", 0, 1, "position in execution order / last", _depth),
    Feature("last_action", -1, 1, "the action that led here, clipped; 0 at reset", _last_action),
)
"""One row per group; shares are of the network as it is now."""

GLOBAL_FEATURES: tuple[Feature, ...] = (
    Feature("accuracy", 0, 1, "search-val top-1 accuracy", _accuracy),
    Feature("likelihood", 0, 1, "exp(-search-val cross-entropy)", _likelihood),
    Feature("params", 0, 1, "parameters / dense", _params),
    Feature("macs", 0, 1, "MACs / dense", _macs),
    Feature("progress", 0, 1, "removed / removable channels", _progress),
    Feature("over_budget", -1, 1, "usage - limit, clipped, one per budget", _over_budget),
)
"""After the last group; `over_budget` once per budget, in the budget's order."""


class ObservationKind(Protocol):
    """What the environment needs from an observation."""

    names: tuple[str, ...]

    def space(self) -> spaces.Space[np.ndarray]:
        """A fresh Gymnasium space of the observations."""

    def observe(self, state: PruningState) -> np.ndarray:
        """A fresh observation of a judged state."""


class FlatObservation:
    """`observation="flat"`: the (L, F) table of group features row by row, then the globals.

    Args:
        graph: the dense network's channels.
        budgets: those of the states to observe.
        scores: (C,) importance in the dense network.
        floors: (L,) the fewest channels that each group can keep.

    Attributes:
        names: what each entry is: `"<group>/<feature>"`, then the global names
            (`"over_budget/<budget>"` for the last ones).
    """

    def __init__(
        self,
        graph: ChannelGraph,
        budgets: tuple[Budget, ...],
        scores: np.ndarray,
        floors: np.ndarray,
    ) -> None:
        self._graph = graph
        self._budgets = budgets
        self._scores = scores
        self._floors = floors
        copies = [len(budgets) if f.name == "over_budget" else 1 for f in GLOBAL_FEATURES]
        rows = GROUP_FEATURES * len(graph.groups)
        tail = [f for f, n in zip(GLOBAL_FEATURES, copies, strict=True) for _ in range(n)]
        self._low = np.array([f.low for f in (*rows, *tail)], dtype=np.float32)
        self._high = np.array([f.high for f in (*rows, *tail)], dtype=np.float32)
        self.names: tuple[str, ...] = (
            *(f"{group.name}/{f.name}" for group in graph.groups for f in GROUP_FEATURES),
            *(f.name for f in GLOBAL_FEATURES if f.name != "over_budget"),
            *(f"over_budget/{budget.name}" for budget in budgets),
        )

    def space(self) -> spaces.Box:
        """A flat float32 `Box`, bounded on both sides."""
        return spaces.Box(self._low.copy(), self._high.copy(), dtype=np.float32)

    def observe(self, state: PruningState) -> np.ndarray:
        """A fresh float32 vector inside the space, from a judged state."""
        if state.metrics is None:
            raise ValueError("state has metrics=None; give a judged state")
        scene = Scene(self._graph, self._budgets, self._scores, self._floors, state, state.metrics)
        table = np.stack([f.compute(scene) for f in GROUP_FEATURES], axis=1)
        tail = [f.compute(scene) for f in GLOBAL_FEATURES]
        flat = np.concatenate([table.ravel(), *tail]).astype(np.float32)
        # Sums that are 1 up to rounding, and measured budgets above the dense network's.
        return np.clip(flat, self._low, self._high)


_OBSERVATIONS: dict[
    str, Callable[[ChannelGraph, tuple[Budget, ...], np.ndarray, np.ndarray], ObservationKind]
] = {"flat": FlatObservation}


def observation_names() -> tuple[str, ...]:
    """The values that `observation=` accepts."""
    return tuple(_OBSERVATIONS)


def make_observation(
    name: str,
    graph: ChannelGraph,
    budgets: tuple[Budget, ...],
    scores: np.ndarray,
    floors: np.ndarray,
) -> ObservationKind:
    """The observation kind `name` for states of `graph`; the rest as in `FlatObservation`."""
    check_choice("observation", name, _OBSERVATIONS)
    return _OBSERVATIONS[name](graph, budgets, scores, floors)
