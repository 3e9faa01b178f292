"""`PruningDynamics` on the table: steps of one or many episodes as array lookups.

Everything that depends on the configuration alone (costs, feasibility, most of the observation) is
an array over the table; a step is one split of units over groups, and an index. Which units go is
decided by the shared pieces in actions.py; tests hold the rest against `PruningDynamics`. Knows
nothing of Gymnasium.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from pruning_env.evaluation.evaluator import Metrics
from pruning_env.process.actions import ActionKind, split_by_turns
from pruning_env.process.constraints import StepPath
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.filters import filters_at
from pruning_env.process.observations import FlatObservation
from pruning_env.process.state import PruningState
from pruning_env.tabular.table_evaluator import TableEvaluator

__all__ = ["Place", "TabularProcess"]


@dataclass(frozen=True, slots=True)
class Place:
    """The state of an episode, or of N episodes, by its index in the table.

    It has a state's attributes, with (N,) arrays for numbers and (N, ...) for arrays where it is N
    episodes, so that dynamics and rewards written with arithmetic can read it as one.

    Attributes:
        latest: metrics of the last judged state: this one's if it is `judged`.
        judged: whether it is; a lazy reward judges only where an episode ends.
    """

    process: TabularProcess
    index: Any
    step: Any
    latest: Metrics
    judged: Any
    last_action: np.ndarray
    requested: Any
    removed: Any

    @property
    def counts(self) -> np.ndarray:
        """(..., L) channels of each group."""
        return self.process.counts[self.index]

    @property
    def keep(self) -> np.ndarray:
        """(..., C) bool, which channels are left."""
        graph = self.process.dynamics.graph
        return self.process.dynamics.rank < self.counts[..., graph.group_index]

    @property
    def params(self) -> Any:
        """Parameters / dense."""
        return at(self.process.params, self.index)

    @property
    def macs(self) -> Any:
        """MACs / dense."""
        return at(self.process.macs, self.index)

    @property
    def usage(self) -> tuple[Any, ...]:
        """One ratio to dense per budget."""
        return tuple(at(usage, self.index) for usage in self.process.usage)

    @property
    def weights(self) -> None:
        """None: nothing in the table is trained."""
        return None

    def state(self) -> PruningState:
        """The state that this is; of one episode only."""
        return PruningState(
            keep=self.keep,
            counts=self.counts,
            step=self.step,
            metrics=self.latest if self.judged else None,
            known=None if self.judged else self.latest,
            usage=self.usage,
            params=self.params,
            macs=self.macs,
            last_action=self.last_action,
            requested=self.requested,
            removed=self.removed,
        )


def at(values: np.ndarray, index: Any) -> Any:
    """The entry as a Python number where `index` is one, else the entries as an array."""
    return values.item(index) if isinstance(index, int) else values[index]


class TabularProcess:
    """One step of `dynamics` for places in the table.

    Args:
        dynamics: its evaluator is a `TableEvaluator`, its budgets are params, macs and filters.
        observation: of that dynamics.

    Attributes:
        dynamics: as given.
        evaluator: that of `dynamics`.
        counts: (M, L) int64 channels of each group, for every configuration.
        params: (M,) parameters / dense.
        macs: (M,) MACs / dense.
        filters: (M,) filters and neurons / dense.
        usage: one of these per budget.
        excess: (M,) how far usage is above the limits, summed over the budgets.
        feasible: (M,) bool, whether every budget is met.
        exhausted: (M,) bool, whether every group is at its floor.
    """

    def __init__(self, dynamics: PruningDynamics, observation: FlatObservation) -> None:
        evaluator = dynamics.evaluator
        assert isinstance(evaluator, TableEvaluator)
        self.dynamics = dynamics
        self.evaluator = evaluator
        table = evaluator.table
        self._observation = observation
        places = np.arange(table.size)
        self.counts = table.counts(places)
        self._channels = self.counts.sum(axis=1)
        self._left = dynamics.units.left(self.counts)
        self._strides = table.strides
        self._lazy = dynamics.lazy
        self._units_per_step = dynamics.per_step // dynamics.units.round_to
        self._constraint = dynamics.constraint
        self._action = dynamics.action
        #: Whether every step goes as many units, so that many steps are one array operation.
        self._even = not self._action.free and not self._constraint.steers
        self._turns = self._action.turns
        self.params = table.params / int(table.params[-1])
        self.macs = table.macs / int(table.macs[-1])
        filters = filters_at(dynamics.graph, self.counts)
        self.filters = filters / int(filters[-1])
        self.usage = tuple(getattr(self, budget.name) for budget in dynamics.budgets)
        self.excess = np.zeros(table.size)
        self.feasible = np.ones(table.size, dtype=np.bool_)
        for budget, usage in zip(dynamics.budgets, self.usage, strict=True):
            self.excess += np.maximum(0.0, usage - budget.limit)
            self.feasible &= usage <= budget.limit
        self.exhausted = np.logical_not(self._left.any(axis=1))
        # The constraint's rule, asked once for each kind of configuration; at step 0 no horizon is
        # reached.
        ends = [[self._constraint.over(0, f, e) for e in (False, True)] for f in (False, True)]
        self._ends = np.array(ends)[self.feasible.astype(int), self.exhausted.astype(int)]

    def dense(self) -> Place:
        """The dense network, where one episode starts."""
        nothing = np.zeros(self._strides.size)
        return Place(self, len(self.counts) - 1, 0, self.evaluator.dense, True, nothing, 0, 0)

    def place(self, state: PruningState) -> Place:
        """The place of a settled state that `dynamics` has checked."""
        return Place(
            self,
            int(self.evaluator.table.index(state.counts)),
            state.step,
            state.latest,
            state.metrics is not None,
            state.last_action,
            state.requested,
            state.removed,
        )

    def over(self, index: Any, step: Any) -> Any:
        """(...) bool, whether an episode that comes to `index` (...) by its `step`-th step ends."""
        ends, horizon = at(self._ends, index), self._constraint.max_steps
        return ends if horizon is None else ends | (step >= horizon)

    def cost(self, index: int) -> float:
        """What an episode that ends at `index` pays."""
        usage = [ratios.item(index) for ratios in self.usage]
        return self._constraint.cost(usage, self.dynamics.budgets)

    def successor(
        self,
        index: Any,
        action: np.ndarray,
        units: int | None = None,
        step: int = 0,
        kind: ActionKind | None = None,
    ) -> Any:
        """(...) int64 indices after one step from `index` (...) by parsed actions (..., L).

        Args:
            index: where the steps begin.
            action: parsed actions.
            units: how many go in all; None for the environment's step size.
            step: steps taken before; read only where groups take turns, and then `index` is one.
            kind: how actions are split; None for the environment's own.
        """
        kind = self._action if kind is None else kind
        left = self._left.take(index, axis=0)
        given = self._left[-1] - left
        total = self._units_per_step if units is None else units
        if kind.turns:
            left, _ = split_by_turns(kind, step, left)
        taken = kind.split(action, total, left, given)
        return index - taken @ self._strides

    def _units(self, index: int, step: int, action: np.ndarray) -> int:
        """How many units the `step`-th step of an episode goes; more than are left means all."""
        if self._even:
            return self._units_per_step
        left, reserve = split_by_turns(self._action, step - 1, self._left[index])
        most, spare = int(left.sum()), 0
        later = self.dynamics.later(step, most)
        at_last = 0
        if reserve is not None:
            later = spare = int(reserve.sum())
            at_last = int(reserve @ self._strides)
        path = StepPath(
            asked=self._action.asks(action, self._units_per_step, left),
            later=later,
            left=most + spare,
            meets=lambda units: at(
                self.feasible,
                int(self.successor(index, action, units - spare, step - 1)) - at_last,
            ),
        )
        return self._constraint.units(path, step)

    def follow(self, before: Place, action: np.ndarray) -> Place:
        """One step of one episode by a parsed action (L,); counts an evaluation if it is new."""
        step = before.step + 1
        units = self._units(before.index, step, action)
        index = int(self.successor(before.index, action, units, before.step))
        judged = not self._lazy or self.over(index, step)
        return Place(
            self,
            index,
            step,
            self._look_up(index) if judged else before.latest,
            judged,
            action,
            units * self.dynamics.units.round_to,
            self._channels.item(before.index) - self._channels.item(index),
        )

    def _look_up(self, index: int) -> Metrics:
        """The metrics there; those of the dense network, where nothing was removed, are free."""
        dense = len(self.counts) - 1
        return self.evaluator.dense if index == dense else self.evaluator.look_up(index)

    def follow_many(self, before: Place, actions: np.ndarray) -> Place:
        """`follow` for N episodes, `actions` (N, L)."""
        step = before.step + 1
        if self._even:
            units = np.full(len(actions), self._units_per_step)
            index = self.successor(before.index, actions)
        else:
            slots = list(zip(before.index.tolist(), step.tolist(), actions, strict=True))
            each = [self._units(*slot) for slot in slots]
            units = np.array(each, dtype=np.int64)
            index = np.array(
                [
                    self.successor(place, action, some, after - 1)
                    for (place, after, action), some in zip(slots, each, strict=True)
                ],
                dtype=np.int64,
            )
        judged = self.over(index, step) if self._lazy else np.ones(len(index), dtype=np.bool_)
        accuracy, loss = before.latest.accuracy.copy(), before.latest.loss.copy()  # type: ignore[attr-defined]
        asked = judged & (index != len(self.counts) - 1)
        accuracy[asked], loss[asked] = self.evaluator.look_up_many(index[asked])
        dense = judged & ~asked
        accuracy[dense], loss[dense] = self.evaluator.dense.accuracy, self.evaluator.dense.loss
        return Place(
            self,
            index,
            step,
            Metrics(accuracy, loss),  # type: ignore[arg-type]
            judged,
            actions,
            units * self.dynamics.units.round_to,
            self._channels[before.index] - self._channels[index],
        )

    def observe(self, place: Place) -> np.ndarray:
        """(..., n) a fresh float32 observation of `place`."""
        seen = self._seen.take(place.index, axis=0)
        seen[..., self._where["last_action"]] = place.last_action
        if self._constraint.max_steps is not None:
            left = np.maximum(0.0, 1.0 - np.asarray(place.step) / self._constraint.max_steps)
            seen[..., self._where["steps_left"]] = left[..., None]
        if self._turns:
            marks = np.arange(self._strides.size) == np.asarray(place.step)[..., None]
            seen[..., self._where["turn"]] = marks
        if self._lazy:
            latest = (place.latest.accuracy, np.vectorize(math.exp)(-np.asarray(place.latest.loss)))
            for feature, value in zip(("accuracy", "likelihood"), latest, strict=True):
                seen[..., self._where[feature]] = np.asarray(value)[..., None]
        return seen

    def info(self, place: Place, cost: Any, reward_terms: Any) -> dict[str, Any]:
        """Gymnasium's info at `place`; numbers for one episode, (N,) arrays for N."""
        return {
            "accuracy": place.latest.accuracy,
            "loss": place.latest.loss,
            "params": place.params,
            "macs": place.macs,
            "cost": cost,
            "budget_excess": at(self.excess, place.index),
            "requested": place.requested,
            "removed": place.removed,
            "exhausted": at(self.exhausted, place.index),
            "is_success": at(self.feasible, place.index),
            "usage": {b.name: u for b, u in zip(self.dynamics.budgets, place.usage, strict=True)},
            "reward_terms": reward_terms,
        }

    @cached_property
    def _where(self) -> dict[str, Any]:
        """The entries of an observation by the feature's name; slices where they are evenly set."""
        entries: dict[str, list[int]] = {}
        for entry, name in enumerate(self._observation.names):
            parts = name.split("/")
            feature = parts[0] if parts[0] in ("over_budget", name) else parts[-1]
            entries.setdefault(feature, []).append(entry)
        return {
            feature: slice(where[0], where[-1] + 1, max(1, where[-1] - where[-2]))
            if len(where) > 1
            else slice(where[0], where[0] + 1)
            for feature, where in entries.items()
        }

    @cached_property
    def _seen(self) -> np.ndarray:
        """(M, n) float32: the observation of every configuration, before any action."""
        graph, table = self.dynamics.graph, self.evaluator.table
        first = self._observation.observe(self.dynamics.initial())
        seen = np.repeat(first[None], table.size, axis=0)  # what never changes is right
        sizes, floors = graph.sizes, self.dynamics.units.floors
        columns = {
            "sparsity": 1.0 - self.counts / sizes,
            "sensitivity": self._sensitivity(),
            "params_share": self._saving(table.params),
            "macs_share": self._saving(table.macs),
            "width": self.counts / sizes.max(),
            "accuracy": self.evaluator.accuracy[:, None],
            "likelihood": np.array([math.exp(-loss) for loss in self.evaluator.loss])[:, None],
            "params": self.params[:, None],
            "macs": self.macs[:, None],
            "progress": ((sizes.sum() - self._channels) / (sizes - floors).sum())[:, None],
            "over_budget": np.stack(
                [
                    usage - budget.limit
                    for usage, budget in zip(self.usage, self.dynamics.budgets, strict=True)
                ],
                axis=1,
            ),
        }
        space = self._observation.space()
        for feature, values in columns.items():
            where = self._where[feature]
            values = values.astype(np.float32)
            seen[:, where] = np.clip(values, space.low[where], space.high[where])
        return seen

    def _sensitivity(self) -> np.ndarray:
        """(M, L), see `importance.group_sensitivity`."""
        graph, rank = self.dynamics.graph, self.dynamics.rank
        means = np.zeros((int(self._left.max()) + 1, len(graph.groups)))
        for left in range(len(means)):
            counts = self.counts[np.minimum(left, self._left[-1]) @ self._strides]
            kept = np.where(graph.keep_top(rank, counts), self.dynamics.scores, 0.0)
            means[left] = np.bincount(graph.group_index, kept, len(graph.groups)) / counts
        of_each = means[self._left, np.arange(len(graph.groups))]
        return of_each / of_each.sum(axis=1, keepdims=True)

    def _saving(self, amounts: np.ndarray) -> np.ndarray:
        """(M, L), see `observations.FeatureContext.saving`."""
        at_floor = np.arange(len(self.counts))[:, None] - self._left * self._strides
        return 1.0 - amounts[at_floor] / np.maximum(amounts.astype(np.float64), 1.0)[:, None]
