"""What networks use of each budget, as ratios to the dense network.

Closed forms are read off the channel graph; anything else needs the pruned model, which is built
only when its number is asked for. Knows nothing of actions, steps or episodes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pruning_env.process.budgets import Budget

if TYPE_CHECKING:
    from torch import nn

    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.evaluation.weights import Weights
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["NetworkUsage", "UsageMeter"]


class UsageMeter:
    """Measures what networks use of each budget, as ratios to the dense one.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network; builds the models that a measurement needs.
        budgets: what is measured.

    Raises:
        ValueError: the dense network uses nothing of a budget, so that there is no ratio to it.
    """

    def __init__(
        self, graph: ChannelGraph, evaluator: Evaluator, budgets: tuple[Budget, ...]
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
        images = self._evaluator.images("search-val")[0]
        return budget.compare(self._dense_model, self._model(keep, start), images)

    @cached_property
    def _dense_model(self) -> nn.Module:
        return self._model(self._graph.full(), None)

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
        budgets = self._usage_meter.budgets
        cheapest_first = sorted(range(len(budgets)), key=lambda i: not budgets[i].closed_form)
        return all(self._ratio(index) <= budgets[index].limit for index in cheapest_first)

    def _ratio(self, index: int) -> float:
        if index not in self._known:
            self._known[index] = self._usage_meter.ratio(index, self._keep, self._start)
        return self._known[index]
