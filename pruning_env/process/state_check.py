"""Whether a state that comes from outside is one that a pruning process can be in.

States travel: users keep them, restore them in another environment and build them by hand. What is
wrong with one is said here, by the name of its part. Knows nothing of transitions or rewards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_env.evaluation.weights import Weights
from pruning_env.process.state import PruningState

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.ranking import Ranking
    from pruning_env.process.rounding import WidthUnits
    from pruning_env.process.sensitivity import SensitivityMeter
    from pruning_env.process.usage import UsageMeter

__all__ = ["StateCheck"]


class StateCheck:
    """Tells states of one process from others. Metrics that a state brings along are trusted.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network.
        usage_meter: of the same network, with the process's budgets.
        units: the steps in which widths shrink.
        ranking: which channels go first.
        sensitivity: measures what states of the process carry of it; None: they carry none.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        usage_meter: UsageMeter,
        units: WidthUnits,
        ranking: Ranking,
        *,
        sensitivity: SensitivityMeter | None,
    ) -> None:
        self._graph = graph
        self._evaluator = evaluator
        self._usage_meter = usage_meter
        self._units = units
        self._ranking = ranking
        self._sensitivity = sensitivity

    def __call__(self, state: Any) -> PruningState:
        """Return the state as it was given.

        Raises:
            ValueError: it is no `PruningState`, or of another network, ranking or budget.
        """
        if not isinstance(state, PruningState):
            raise ValueError(f"state={state!r} is not allowed; give a PruningState")
        self._check_counts(state)
        self._check_weights(state)
        self._check_sensitivity(state)
        self._check_usage(state)
        return state

    def _check_counts(self, state: PruningState) -> None:
        """Raise `ValueError` unless widths are possible and the ranking keeps these channels."""
        graph = self._graph
        sizes = graph.sizes
        if state.counts.shape != sizes.shape or state.keep.shape != (graph.num_channels,):
            raise ValueError(
                f"state is of another network: it has {state.counts.size} groups and "
                f"{state.keep.size} channels, this one {sizes.size} and {graph.num_channels}"
            )
        if not self._units.reachable(state.counts):
            raise ValueError(
                f"state.counts={state.counts.tolist()} must be sizes of the dense network or "
                f"multiples of round_to={self._units.round_to} between the floors and them"
            )
        if self._ranking.every is None:
            kept = graph.keep_top(self._ranking.rank, state.counts)
            fits = state.ranking is None and np.array_equal(state.keep, kept)
        else:  # any of a group's channels may be left
            fits = np.array_equal(graph.counts(state.keep), state.counts)
            scores = state.ranking
            if scores is not None and (
                scores.shape != state.keep.shape or not np.isfinite(scores).all()
            ):
                raise ValueError(
                    f"state.ranking of shape {scores.shape} is not allowed; give "
                    f"{state.keep.size} finite numbers, one per channel, or None"
                )
        if not fits:
            raise ValueError(
                "state.keep is not what this ranking keeps at state.counts; "
                "take states from an environment with the same task, weights and importance"
            )

    def _check_weights(self, state: PruningState) -> None:
        """Raise `ValueError` unless the state's weights are those that this recovery leaves."""
        weights, evaluator = state.weights, self._evaluator
        if weights is not None:
            if not (evaluator.trains or evaluator.trains_commits):
                raise ValueError(
                    f"state.weights are given, but recovery={evaluator.recovery!r} trains none"
                )
            lacking = weights.keep.shape != state.keep.shape or (state.keep & ~weights.keep).any()
            other = not np.array_equal(weights.keep, state.keep)
            if lacking or (evaluator.trains and state.metrics and other):
                raise ValueError(
                    "state.weights are of other channels than state.keep; take states from an "
                    "environment with the same task, weights and importance"
                )
        elif evaluator.trains and state.metrics is not None and not state.keep.all():
            raise ValueError(
                "state.weights is None, but the state is judged and recovery='finetune' trains; "
                "give the state's weights, or metrics=None to have it trained and judged"
            )
        teacher = state.teacher
        if teacher is not None and not (
            evaluator.trains_commits
            and isinstance(weights_of := getattr(teacher, "weights", None), Weights)
            and weights_of.keep.shape == state.keep.shape
        ):
            raise ValueError(
                f"state.teacher={teacher!r} is not allowed; give None, or where only commits are "
                "trained the Recovered of a network that was"
            )

    def _check_sensitivity(self, state: PruningState) -> None:
        """Raise `ValueError` unless the state carries a sensitivity as this process measures it."""
        if state.sensitivity is None:
            return  # settling measures it where states carry one
        if self._sensitivity is None:
            raise ValueError("state.sensitivity is given, but sensitivity_every=None measures none")
        scores = state.sensitivity
        size = self._sensitivity.size
        if scores.shape != (size,) or not (np.isfinite(scores) & (scores >= 0)).all():
            what = "channel" if size == state.keep.size else "group"
            raise ValueError(
                f"state.sensitivity of shape {scores.shape} is not allowed; give {size} finite "
                f"numbers of at least 0, one per {what}"
            )

    def _check_usage(self, state: PruningState) -> None:
        """Raise `ValueError` unless the state's usage is that of these budgets."""
        budgets = self._usage_meter.budgets
        if len(state.usage) != len(budgets):
            raise ValueError(
                f"state.usage has {len(state.usage)} entries; "
                f"this environment has {len(budgets)} budgets"
            )
        for index, (budget, usage) in enumerate(zip(budgets, state.usage, strict=True)):
            # A measured budget is trusted: measuring again builds a model, and may be noisy.
            if budget.closed_form and usage != self._usage_meter.ratio(index, state.keep):
                raise ValueError(
                    f"state.usage={state.usage} is not the usage of "
                    f"{tuple(b.name for b in budgets)}, which this environment bounds"
                )
