"""What a step removes: how many channels, of which groups, and which ones.

An action, a constraint and a ranking meet here. Knows nothing of accuracy, rewards or when an
episode ends.
"""

from __future__ import annotations

import bisect
import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_env.arguments import check_fraction
from pruning_env.process.actions import split_by_turns
from pruning_env.process.constraints import Constraint, StepPath
from pruning_env.process.filters import filters_per_channel
from pruning_env.process.state import PruningState
from pruning_env.process.usage import NetworkUsage

if TYPE_CHECKING:
    from pruning_env.evaluation.metrics import Metrics
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.actions import ActionKind
    from pruning_env.process.budgets import Budget
    from pruning_env.process.ranking import Ranking
    from pruning_env.process.rounding import WidthUnits
    from pruning_env.process.usage import UsageMeter

__all__ = ["Cutting"]


class Cutting:
    """Takes from states what actions ask for and constraints allow.

    Args:
        graph: the dense network's channels.
        action: how an action is split over the groups.
        ranking: which channels go first.
        usage_meter: of the budgets.
        channels_per_step: as of the process.
        filters_per_step: likewise.
        units: the steps in which widths shrink.

    Attributes:
        units: as given.
        per_step: channels that a step announces, unless action or constraint say otherwise.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        action: ActionKind,
        ranking: Ranking,
        usage_meter: UsageMeter,
        *,
        channels_per_step: float,
        filters_per_step: float | None,
        units: WidthUnits,
    ) -> None:
        self._graph = graph
        self._action = action
        self._ranking = ranking
        self.usage_meter = usage_meter
        share = check_fraction("channels_per_step", channels_per_step)
        self.units = units
        self._units_per_step = max(1, round(share * graph.num_channels / units.round_to))
        self.per_step = self._units_per_step * units.round_to
        self._filters = filters_per_channel(graph) * units.round_to
        self._filters_per_step: int | None = None
        if filters_per_step is not None:
            share = check_fraction("filters_per_step", filters_per_step)
            number = share * int(graph.sizes @ filters_per_channel(graph))
            self._filters_per_step = max(1, round(number))
        full = graph.full()
        self._dense_params = int(graph.params(full))
        self._dense_macs = int(graph.macs(full))

    def check(self, constraint: Constraint) -> None:
        """Refuse a constraint that cannot do with the action, with steps of filters, or at all.

        Raises:
            ValueError: saying what is not allowed with what.
        """
        self.usage_meter.check(constraint)
        max_steps = constraint.max_steps
        if self._action.free and max_steps is None:
            raise ValueError(
                "max_steps=None is not allowed with an action that may remove nothing, such as "
                "'ratio'; give an integer of at least 1"
            )
        if self._action.turns and max_steps != len(self._graph.groups):
            raise ValueError(
                f"max_steps={max_steps} is not allowed where groups take turns; give "
                f"{len(self._graph.groups)}, the number of groups"
            )
        if self._action.turns and constraint.name == "project":
            raise ValueError(
                "constraint='project' is not allowed where groups take turns: its last step could "
                "only take from the last group; give 'wall'"
            )
        if self._filters_per_step is not None and (
            self._action.free or self._action.turns or constraint.name == "wall"
        ):
            raise ValueError(
                "filters_per_step is not allowed with constraint='wall', or with an action that "
                "says itself how much goes; give None"
            )

    def apply(
        self,
        state: PruningState,
        action: Any,
        constraint: Constraint,
        *,
        known: Metrics | None,
        sensitivity: np.ndarray | None,
    ) -> PruningState:
        """The state after a step, not judged; see `PruningDynamics.apply`.

        Args:
            state: where the step begins.
            action: raw.
            constraint: of the episode.
            known: what the new state knows of metrics before it.
            sensitivity: what it carries.
        """
        parsed = self._action.parse(action, state.step)
        left, reserve = split_by_turns(self._action, state.step, self.units.left(state.counts))
        given = self.units.given(state.counts)
        scores = self._ranking.scores_at(state)
        rank = self._ranking.rank_by(scores, state)
        most = int(left.sum())
        spare = 0 if reserve is None else int(reserve.sum())

        @functools.cache
        def after(
            units: int, reserved: bool = False
        ) -> tuple[np.ndarray, np.ndarray, NetworkUsage]:
            taken = self._action.split(parsed, units, left, given)
            if reserved and reserve is not None:
                taken = taken + reserve
            counts = self.units.take(state.counts, taken)
            keep = self._graph.keep_top(rank, counts)
            return counts, keep, NetworkUsage(self.usage_meter, keep, state.weights)

        path = StepPath(
            asked=self._action.asks(parsed, self._usual(parsed, left, given), left),
            later=self.later(constraint, state.step + 1, most) if reserve is None else spare,
            left=most + spare,
            meets=lambda units: after(units - spare, spare > 0)[2].enough,
        )
        units = constraint.units(path, state.step + 1)
        # Called as in `meets`, so that what was measured there is not measured anew.
        counts, keep, reading = after(min(units, most), False)
        if constraint.steers and reading.enough and not reading.feasible:
            _warn_of_noise(reading.usage, self.usage_meter.budgets)
        return PruningState(
            keep=keep,
            counts=counts,
            step=state.step + 1,
            metrics=None,
            usage=reading.usage,
            params=int(self._graph.params(keep)) / self._dense_params,
            macs=int(self._graph.macs(keep)) / self._dense_macs,
            last_action=parsed,
            requested=units * self.units.round_to,
            removed=int((state.counts - counts).sum()),
            weights=state.weights,
            known=known,
            sensitivity=sensitivity,
            teacher=state.teacher,
            ranking=None if self._ranking.due(state.step + 1) else scores,
        )

    def later(self, constraint: Constraint, step: int, most: int) -> int:
        """Most units that an episode's steps after the `step`-th can take, of `most` that are left.

        Where groups take turns, it is what the later groups hold instead.
        """
        horizon = constraint.max_steps
        if horizon is None:
            return 0
        return max(0, horizon - step) * (most if self._action.free else self._units_per_step)

    def _usual(self, action: np.ndarray, left: np.ndarray, given: np.ndarray) -> int:
        """Units that a step removes, unless action or constraint say otherwise."""
        wanted = self._filters_per_step
        if wanted is None:
            return self._units_per_step

        def filters(units: int) -> int:
            return int(self._action.split(action, units, left, given) @ self._filters)

        most = max(1, int(left.sum()))
        enough = bisect.bisect_left(range(1, most), wanted, key=filters) + 1
        fewer = max(1, enough - 1)
        return fewer if wanted - filters(fewer) < filters(enough) - wanted else enough


def _warn_of_noise(usage: tuple[float, ...], budgets: tuple[Budget, ...]) -> None:
    above = ", ".join(
        f"{budget.name} {ratio:.3g} (limit {budget.limit:.3g})"
        for budget, ratio in zip(budgets, usage, strict=True)
        if ratio > budget.limit
    )
    warnings.warn(
        f"a step stops before its budget is met: {above}, measured on a network too small to need "
        "that much; is this machine busy?",
        RuntimeWarning,
        stacklevel=2,
    )
