"""From an order in which channels should go to a pruning that the environment can reach.

Methods that rank (all channels by importance, all groups by loss per saving) decide who goes next,
not how many go per step. This module turns such an order into one action; it knows nothing of where
the order comes from.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning_agents.rl_pruner.distribution import to_action
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.rollout import approach
from pruning_env.process.actions import DistributionAction


def distribution_kind(search: BudgetedSearch) -> DistributionAction:
    """The environment's action kind.

    Raises:
        ValueError: if it is no distribution.
    """
    kind = search.dynamics.action
    if not isinstance(kind, DistributionAction):
        raise ValueError(
            f"env must be made with action='distribution'; its actions are a {type(kind).__name__}"
        )
    return kind


def judge_order(search: BudgetedSearch, order: NDArray[np.int64]) -> None:
    """Take units from the groups in `order` until the budget is met, and judge that; 1 evaluation.

    The pruning is what the environment makes of one action kept to the end, as for every other
    candidate: the action whose distribution is the share of each group in the shortest beginning of
    the order that meets the budget. So counts differ from the order's by rounding, and a group that
    the order leaves whole may lose a channel, because the softmax gives nobody a share of 0.

    Args:
        search: with at least one evaluation left.
        order: (U,) indices of groups, each as often as it has units to give.
    """
    dynamics, kind = search.dynamics, distribution_kind(search)
    per_step = dynamics.per_step // dynamics.units.round_to
    for step in range(1, -(-order.size // per_step) + 1):
        shares = np.bincount(order[: step * per_step], minlength=search.groups)
        action = to_action(shares / shares.sum(), kind.sizes, kind.logit_scale)
        before = approach(dynamics, search.start, action, step)
        if dynamics.terminal(dynamics.apply(before, action)):
            search.steps([before], [action])
            return
