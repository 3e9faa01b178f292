"""From what channels cost to the order in which they go, and from that to one action.

Methods that rank (all channels by importance, all groups by loss per saving) decide who goes next.
Where the order ends is the environment's business: a rule meets the budgets as closely as any
search does, because its pruning is an action like any other. Knows nothing of where costs come
from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruning_agents.rl_pruner.distribution import to_action
from pruning_agents.search.rollout import approach
from pruning_env.process.actions import DistributionAction
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.filters import filters_at
from pruning_env.process.usage import NetworkUsage

__all__ = [
    "Costs",
    "cheapest_first",
    "costs_of_scores",
    "distribution_kind",
    "lowest_first",
    "order_action",
]

#: Per group, (units,) what each unit costs, in the order in which they go.
Costs = Sequence[NDArray[np.float64]]

#: A unit that costs nothing counts as this share of the mean cost, so that its saving decides.
_NEXT_TO_NOTHING = 1e-6

#: Actions are tried until one removes as much as it was made from; two or three are enough.
_ROUNDS = 5


def distribution_kind(dynamics: PruningDynamics) -> DistributionAction:
    """The environment's action kind.

    Raises:
        ValueError: if it is no distribution.
    """
    kind = dynamics.action
    if not isinstance(kind, DistributionAction):
        raise ValueError(
            f"env must be made with action='distribution'; its actions are a {type(kind).__name__}"
        )
    return kind


def costs_of_scores(dynamics: PruningDynamics, scores: NDArray[np.float64]) -> list:
    """`Costs` of (C,) importance scores: the mean score of each unit, the least important first.

    Channels of a group form units from the least important one on; a partial unit goes first.
    """
    graph, units = dynamics.graph, dynamics.units
    costs = []
    for group, (size, left) in enumerate(zip(graph.sizes, units.left(graph.sizes), strict=True)):
        ascending = np.sort(scores[graph.group_index == group])
        ends = size - units.round_to * np.arange(left, 0, -1)
        costs.append(
            np.array([ascending[max(0, end - units.round_to) : end].mean() for end in ends])
        )
    return costs


def lowest_first(costs: Costs) -> NDArray[np.int64]:
    """(U,) the group of each unit, by rising cost: one threshold for the whole network.

    Costs must rise inside each group.
    """
    groups = np.repeat(np.arange(len(costs)), [len(each) for each in costs])
    return groups[np.argsort(np.concatenate(list(costs)), kind="stable")]


def cheapest_first(dynamics: PruningDynamics, costs: Costs) -> NDArray[np.int64]:
    """(U,) the group of each unit, the least cost per saving first: a greedy knapsack.

    A saving is what the unit takes off the budgets' usage at the current counts; for budgets that
    have no closed form, off the parameters.
    """
    units, sizes = dynamics.units, dynamics.graph.sizes
    left, given = units.left(sizes), np.zeros(sizes.size, dtype=np.int64)
    mean = float(np.concatenate(list(costs)).mean())
    nothing = _NEXT_TO_NOTHING * (mean if mean > 0 else 1.0)
    order = []
    while (given < left).any():
        one_more = np.minimum(given + np.eye(sizes.size, dtype=np.int64), left)
        saved = _usage(dynamics, units.take(sizes, given)) - _usage(
            dynamics, units.take(sizes, one_more)
        )
        cost = np.array(
            [
                each[n] if n < len(each) else np.inf
                for each, n in zip(costs, given.tolist(), strict=True)
            ]
        )
        order.append(int(np.argmin((cost + nothing) / np.maximum(saved, 1e-12))))
        given[order[-1]] += 1
    return np.array(order, dtype=np.int64)


def order_action(dynamics: PruningDynamics, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """(L,) the action that takes units from the groups in `order`, kept to the end of an episode.

    Its distribution is the share of each group in the beginning of the order that is as long as
    what an episode with it removes: under `constraint="project"`, the shortest that meets the
    budgets. So counts are the order's, but for rounding and for shares that the softmax's range
    does not reach. Nothing is evaluated.

    Args:
        dynamics: of the environment.
        order: (U,) indices of groups, each as often as it has units to give.

    Raises:
        ValueError: the environment's actions are no distributions.
    """
    kind, start = distribution_kind(dynamics), dynamics.initial()
    length = _shortest(dynamics, order)
    for _ in range(_ROUNDS):
        shares = np.bincount(order[:length], minlength=kind.sizes.size)
        action = to_action(shares / shares.sum(), kind.sizes, kind.logit_scale)
        end = dynamics.apply(approach(dynamics, start, action), action)
        removed = min(int(dynamics.units.given(end.counts).sum()), order.size)
        if removed == length:
            break
        length = removed
    return action


def _shortest(dynamics: PruningDynamics, order: NDArray[np.int64]) -> int:
    """How many units of the order go until the budgets are met; all of them, if they never are."""
    graph, units = dynamics.graph, dynamics.units
    too_few, enough = 0, order.size
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        taken = np.bincount(order[:middle], minlength=graph.sizes.size)
        keep = graph.keep_top(dynamics.rank, units.take(graph.sizes, taken))
        if NetworkUsage(dynamics.usage_meter, keep).feasible:
            enough = middle
        else:
            too_few = middle
    return enough


def _usage(dynamics: PruningDynamics, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(...,) usage of networks of `counts` (..., L), summed over budgets, as ratios to dense."""
    graph = dynamics.graph
    forms = {
        "params": graph.params_at,
        "macs": graph.macs_at,
        "filters": lambda counts: filters_at(graph, counts),
    }
    names = [budget.name for budget in dynamics.budgets if budget.closed_form] or ["params"]
    return np.sum(
        [np.asarray(forms[name](counts)) / float(forms[name](graph.sizes)) for name in names],
        axis=0,
    )
