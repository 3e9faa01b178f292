"""Observations: what an agent sees of a pruning state, as bounded tables of numbers.

`GROUP_FEATURES`, `GLOBAL_FEATURES` and `STEPS_LEFT` are the whole definition: one row per number,
with its range and its function. Knows nothing of actions, rewards or the rules of an episode.
"""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from pruning_env.arguments import check_choice
from pruning_env.evaluation.importance.scores import group_sensitivity

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Metrics
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.budgets import Budget
    from pruning_env.process.dynamics import PruningState


@dataclass(frozen=True)
class FeatureContext:
    """What a feature may look at: the network, its channels' scores, and one state."""

    graph: ChannelGraph
    budgets: tuple[Budget, ...]
    scores: np.ndarray
    floors: np.ndarray
    state: PruningState
    metrics: Metrics
    max_steps: int | None

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
    compute: Callable[[FeatureContext], np.ndarray]


def _sparsity(scene: FeatureContext) -> np.ndarray:
    return 1.0 - scene.state.counts / scene.graph.sizes


def _sensitivity(scene: FeatureContext) -> np.ndarray:
    if scene.scores.shape == scene.state.counts.shape:  # measured group by group
        return scene.scores
    return group_sensitivity(scene.graph, scene.scores, scene.state.keep)


def _params_share(scene: FeatureContext) -> np.ndarray:
    return scene.saving(scene.graph.params_at)


def _macs_share(scene: FeatureContext) -> np.ndarray:
    return scene.saving(scene.graph.macs_at)


def _width(scene: FeatureContext) -> np.ndarray:
    return scene.state.counts / scene.graph.sizes.max()


def _dense_width(scene: FeatureContext) -> np.ndarray:
    return scene.graph.sizes / scene.graph.sizes.max()


def _kernel(scene: FeatureContext) -> np.ndarray:
    return _relative([group.kernel for group in scene.graph.groups])


def _stride(scene: FeatureContext) -> np.ndarray:
    return _relative([group.stride for group in scene.graph.groups])


def _depth(scene: FeatureContext) -> np.ndarray:
    return _relative([group.depth for group in scene.graph.groups])


def _last_action(scene: FeatureContext) -> np.ndarray:
    return scene.state.last_action


def _turn(scene: FeatureContext) -> np.ndarray:
    return (np.arange(scene.state.counts.size) == scene.state.step).astype(np.float64)


def _accuracy(scene: FeatureContext) -> np.ndarray:
    return np.array([scene.metrics.accuracy])


def _likelihood(scene: FeatureContext) -> np.ndarray:
    return np.array([math.exp(-scene.metrics.loss)])


def _params(scene: FeatureContext) -> np.ndarray:
    return np.array([scene.state.params])


def _macs(scene: FeatureContext) -> np.ndarray:
    return np.array([scene.state.macs])


def _progress(scene: FeatureContext) -> np.ndarray:
    removable = scene.graph.sizes - scene.floors
    return np.array([(scene.graph.sizes - scene.state.counts).sum() / removable.sum()])


def _over_budget(scene: FeatureContext) -> np.ndarray:
    limits = [budget.limit for budget in scene.budgets]
    return np.array(scene.state.usage) - np.array(limits)


def _steps_left(scene: FeatureContext) -> np.ndarray:
    assert scene.max_steps is not None
    return np.array([max(0.0, 1.0 - scene.state.step / scene.max_steps)])


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

TURN = Feature("turn", 0, 1, "whether the next step is the group's", _turn)
"""One more group feature, the last, where groups take turns."""

STEPS_LEFT = Feature("steps_left", 0, 1, "share of `max_steps` that is left", _steps_left)
"""One more global, the last, where episodes have a `max_steps`: there, what a step does or what a
state is worth depends on it."""


Observation = Any
"""A float32 array, or for some kinds a dict of them; which one, the space says."""


class ObservationKind(abc.ABC):
    """The features of states of one network; kinds differ in how the numbers are arranged.

    Args:
        graph: the dense network's channels.
        budgets: those of the states to observe.
        scores: called when they are first seen; (C,) importance in the dense network, or (L,) how
            much accuracy goes with a tenth of each group. States that carry a `sensitivity` are
            seen with that instead.
        floors: (L,) the fewest channels that each group can keep.
        max_steps: steps of an episode at most, or None.
        turns: whether each step is one group's.

    Attributes:
        names: what each entry is: `"<group>/<feature>"` row by row, then the global names
            (`"over_budget/<budget>"` for the budgets, `"steps_left"` last).
    """

    def __init__(
        self,
        graph: ChannelGraph,
        budgets: tuple[Budget, ...],
        scores: Callable[[], np.ndarray],
        floors: np.ndarray,
        max_steps: int | None = None,
        turns: bool = False,
    ) -> None:
        self._graph = graph
        self._budgets = budgets
        self._scores = scores
        self._floors = floors
        self._max_steps = max_steps
        self._globals = GLOBAL_FEATURES if max_steps is None else (*GLOBAL_FEATURES, STEPS_LEFT)
        self._columns = (*GROUP_FEATURES, TURN) if turns else GROUP_FEATURES
        tail = [(f, name) for f in self._globals for name in self._global_names(f)]
        self.names: tuple[str, ...] = (
            *(f"{group.name}/{f.name}" for group in graph.groups for f in self._columns),
            *(name for _, name in tail),
        )
        rows = (len(graph.groups), 1)
        self._group_bounds = tuple(
            np.tile(np.array(bound, dtype=np.float32), rows)
            for bound in ([f.low for f in self._columns], [f.high for f in self._columns])
        )
        self._global_bounds = tuple(
            np.array(bound, dtype=np.float32)
            for bound in ([f.low for f, _ in tail], [f.high for f, _ in tail])
        )

    @functools.cached_property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(n,) float32 lowest and highest values of `numbers`."""
        low, high = (
            np.concatenate([groups.ravel(), tail])
            for groups, tail in zip(self._group_bounds, self._global_bounds, strict=True)
        )
        return low, high

    def numbers(self, state: PruningState) -> np.ndarray:
        """(n,) fresh float32 group features row by row, then the globals, within their bounds.

        Raises:
            ValueError: the state is not judged and knows no metrics.
        """
        scene = FeatureContext(
            self._graph,
            self._budgets,
            self._scores() if state.sensitivity is None else state.sensitivity,
            self._floors,
            state,
            state.latest,
            self._max_steps,
        )
        groups = np.stack([f.compute(scene) for f in self._columns], axis=1)
        tail = np.concatenate([f.compute(scene) for f in self._globals])
        # Clipped: sums that are 1 up to rounding, and measured budgets above the dense network's.
        return np.clip(np.concatenate([groups.ravel(), tail]).astype(np.float32), *self.bounds)

    def observe(self, state: PruningState) -> Observation:
        """A fresh observation inside the space; see `numbers`."""
        return self.arranged(self.numbers(state))

    @abc.abstractmethod
    def space(self) -> spaces.Space[Any]:
        """A fresh Gymnasium space of the observations."""

    @abc.abstractmethod
    def arranged(self, numbers: np.ndarray) -> Observation:
        """The observation that (..., n) `numbers` are."""

    def _global_names(self, feature: Feature) -> list[str]:
        if feature.name == "over_budget":
            return [f"over_budget/{budget.name}" for budget in self._budgets]
        return [feature.name]


class FlatObservation(ObservationKind):
    """`observation="flat"`: the (L, F) table of group features row by row, then the globals."""

    def space(self) -> spaces.Box:
        """A flat float32 `Box`, bounded on both sides."""
        return spaces.Box(*self.bounds, dtype=np.float32)

    def arranged(self, numbers: np.ndarray) -> np.ndarray:
        """The numbers as they are."""
        return numbers


class DictObservation(ObservationKind):
    """`observation="dict"`: the same numbers, the group features as a matrix beside the globals."""

    def space(self) -> spaces.Dict:
        """`groups` (L, F) and `globals` (G,), float32, bounded on both sides."""
        low, high = (self.arranged(bound) for bound in self.bounds)
        return spaces.Dict(
            {name: spaces.Box(low[name], high[name], dtype=np.float32) for name in low}
        )

    def arranged(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Two arrays of their own, (..., L, F) and (..., G)."""
        shape = self._group_bounds[0].shape
        size = shape[0] * shape[1]
        groups = numbers[..., :size].reshape(*numbers.shape[:-1], *shape)
        return {"groups": groups.copy(), "globals": numbers[..., size:].copy()}


_OBSERVATIONS: dict[str, Callable[..., ObservationKind]] = {
    "flat": FlatObservation,
    "dict": DictObservation,
}


def observation_names() -> tuple[str, ...]:
    """The values that `observation=` accepts."""
    return tuple(_OBSERVATIONS)


def make_observation(
    name: str,
    graph: ChannelGraph,
    budgets: tuple[Budget, ...],
    scores: Callable[[], np.ndarray],
    floors: np.ndarray,
    max_steps: int | None = None,
    turns: bool = False,
) -> ObservationKind:
    """The observation kind `name` for states of `graph`; the rest as in `ObservationKind`."""
    check_choice("observation", name, _OBSERVATIONS)
    return _OBSERVATIONS[name](graph, budgets, scores, floors, max_steps, turns)


def stack(observations: Sequence[Observation]) -> Observation:
    """N observations of one kind as one, of (N, ...) arrays."""
    first = observations[0]
    if isinstance(first, dict):
        return {name: np.stack([each[name] for each in observations]) for name in first}
    return np.stack(observations)
