"""What networks use of each budget, as ratios to the dense network.

Closed forms are read off the channel graph; anything else needs the pruned model, which is built
only when its number is asked for. Knows nothing of actions, steps or episodes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pruning_env.evaluation.latency_table import LatencyTable, latency_table
from pruning_env.process.budgets import Budget
from pruning_env.process.latency_budget import LatencySettings

if TYPE_CHECKING:
    from torch import nn

    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.evaluation.weights import Weights
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.constraints import Constraint

__all__ = ["NetworkUsage", "UsageMeter"]

IMPLAUSIBLE = 0.25
"""Share of the MACs expected to meet a measured limit, below which no network is cut to meet it."""

LEAST_TRIES = 2
"""Measurements of the smallest network before the last one, which may refuse a limit."""


class UsageMeter:
    """Measures what networks use of each budget, as ratios to the dense one.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network; builds the models that a measurement needs.
        budgets: what is measured.
        floors: (L,) int64, the fewest channels that each group can keep.
        latency: how `latency` is measured. With a table, that is read, or measured, now.
        round_to: widths are dense or multiples of it.

    Attributes:
        budgets: as given.
        latency: as given.
        table: what predicts `latency`; None where each network is timed.

    Raises:
        ValueError: the dense network uses nothing of a budget, so that there is no ratio to it, or
            the latency table cannot be used.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        budgets: tuple[Budget, ...],
        floors: np.ndarray,
        latency: LatencySettings = LatencySettings(),  # noqa: B008  frozen
        round_to: int = 1,
    ) -> None:
        self._graph = graph
        self._evaluator = evaluator
        self.budgets = budgets
        full = graph.full()
        self._dense = tuple(1.0 if b.compared else self._amount(b, full, None) for b in budgets)
        for budget, amount in zip(budgets, self._dense, strict=True):
            if amount <= 0:
                raise ValueError(
                    f"budget key {budget.name!r} measures {amount!r} on the dense network; "
                    "it must be above 0 there"
                )
        # Which channels those are makes no difference to sizes and times, and to rank them would
        # compute gradients at construction; see `Ranking`.
        self._smallest = graph.keep_top(graph.rank(np.zeros(graph.num_channels)), floors)
        self._least: dict[int, float] = {}  # what that uses of a budget, by its index
        self._dense_macs, self._least_macs = graph.macs(full), graph.macs(self._smallest)
        self.latency = latency
        self.table = self._read_table(floors, round_to)

    def check(self, constraint: Constraint) -> None:
        """Refuse limits that not even the smallest network meets.

        Those of `latency`, and all where the constraint promises to meet them: elsewhere such a
        limit is a way to say that everything may go.

        Raises:
            ValueError: naming the budget, its limit and the least that can be reached.
        """
        for index, budget in enumerate(self.budgets):
            if (constraint.steers or budget.compared) and self.least(index) > budget.limit:
                at_most = "at most " if budget.compared else ""
                raise ValueError(
                    f"budget[{budget.name!r}]={budget.limit} cannot be met: with everything "
                    f"removed that may be, the network is at {at_most}{self.least(index):.4g}; "
                    "give a larger limit, or let more be removed (groups, round_to)"
                )

    def least(self, index: int) -> float:
        """What the smallest network uses of the `index`-th budget; kept once it is known."""
        if index not in self._least:
            budget, keep = self.budgets[index], self._smallest
            if budget.compared:
                # A limit is refused for good by what one busy moment says, so several are asked.
                tries = (self._compare(budget, keep) for _ in range(LEAST_TRIES))
                met = next((ratio for ratio in tries if ratio <= budget.limit), None)
                timed = self._compare(budget, keep) if met is None else met
                self._least[index] = max(timed, self._predicted(keep) or 0.0)
            else:
                self._least[index] = self._amount(budget, keep, None) / self._dense[index]
        return self._least[index]

    def ratio(self, index: int, keep: np.ndarray, start: Weights | None = None) -> float:
        """What the network `keep` (C,) uses of the `index`-th budget / what the dense one does.

        Where recovery trains and the budget is no closed form, the network is trained from `start`,
        for a function that may look at its weights.
        """
        if keep.all():  # measured once, and 1 by definition even where that is noisy
            return 1.0
        budget = self.budgets[index]
        if not budget.compared:
            return self._amount(budget, keep, start) / self._dense[index]
        if np.array_equal(self._graph.counts(keep), self._graph.counts(self._smallest)):
            return self.least(index)  # so that what can meet the limit does not fail to by noise
        predicted = self._predicted(keep)
        return self._compare(budget, keep) if predicted is None else predicted

    def implausible(self, index: int, keep: np.ndarray) -> bool:
        """Whether the network is too small to be above a measured limit, so that noise says it is.

        Were time to fall in a straight line with MACs, from the dense network to the smallest, the
        limit would be met by a certain share of them; a network of less than `IMPLAUSIBLE` of that
        share is further from the line than networks are.
        """
        budget = self.budgets[index]
        if not budget.compared or self.least(index) >= 1:
            return False
        way = (budget.limit - self.least(index)) / (1 - self.least(index))
        enough = self._least_macs + way * (self._dense_macs - self._least_macs)
        return bool(self._graph.macs(keep) < IMPLAUSIBLE * enough)

    @cached_property
    def _dense_model(self) -> nn.Module:
        return self._model(self._graph.full(), None)

    def _compare(self, budget: Budget, keep: np.ndarray) -> float:
        """By the clock. Which weights are left makes no difference, so nothing is recovered."""
        images = self._evaluator.images("search-val")[0]
        pruned = self._graph.prune(self._dense_model, keep)
        return budget.compare(self._dense_model, pruned, images, self.latency.runtime)

    def _predicted(self, keep: np.ndarray) -> float | None:
        """By the table, the most that is likely; None if there is none."""
        return None if self.table is None else float(self.table.at_most(self._graph.counts(keep)))

    def _read_table(self, floors: np.ndarray, round_to: int) -> LatencyTable | None:
        if self.latency.table is None:
            return None
        if not any(budget.compared for budget in self.budgets):
            raise ValueError(
                f"table={self.latency.table!r} is not allowed without the budget 'latency'"
            )
        return latency_table(
            self.latency.table,
            self._graph,
            self._dense_model,
            self._evaluator.images("search-val")[0],
            self.latency.runtime,
            floors=floors,
            round_to=round_to,
        )

    def _amount(self, budget: Budget, keep: np.ndarray, start: Weights | None) -> float:
        """In the budget's own unit."""
        return budget.measure(self._graph, keep, lambda: self._model(keep, start))

    def _model(self, keep: np.ndarray, start: Weights | None) -> nn.Module:
        if start is None:
            return self._evaluator.pruned_model(keep)
        # Trained now; judging finds it cached.
        trained = self._evaluator.recover_many([keep], [start])[0].weights
        return self._evaluator.pruned_model(keep, trained)


class NetworkUsage:
    """What one network uses; each budget is measured once, when it is first needed.

    So a search that measures a network and a state that reports it agree, noise or not.

    Args:
        usage_meter: what measures.
        keep: (C,) bool.
        start: see `UsageMeter.ratio`.
    """

    def __init__(
        self, usage_meter: UsageMeter, keep: np.ndarray, start: Weights | None = None
    ) -> None:
        self._usage_meter = usage_meter
        self._keep = keep
        self._start = start
        self._known: dict[int, float] = {}

    @property
    def usage(self) -> tuple[float, ...]:
        """One ratio to dense per budget, in the budgets' order."""
        return tuple(self._ratio(index) for index in range(len(self._usage_meter.budgets)))

    @property
    def feasible(self) -> bool:
        """Whether every budget is met; no model is built where a closed form says no."""
        return all(self._met(index) for index in self._cheapest_first)

    @property
    def enough(self) -> bool:
        """Whether nothing more need go: all budgets are met, but for measured ones that must be.

        Those are the limits that so small a network cannot exceed, whatever a measurement says. It
        is not `feasible` then, but to cut more would only follow the noise.
        """
        return all(
            self._met(index) or self._usage_meter.implausible(index, self._keep)
            for index in self._cheapest_first
        )

    @property
    def _cheapest_first(self) -> list[int]:
        budgets = self._usage_meter.budgets
        return sorted(range(len(budgets)), key=lambda index: not budgets[index].closed_form)

    def _met(self, index: int) -> bool:
        return self._ratio(index) <= self._usage_meter.budgets[index].limit

    def _ratio(self, index: int) -> float:
        if index not in self._known:
            self._known[index] = self._usage_meter.ratio(index, self._keep, self._start)
        return self._known[index]
