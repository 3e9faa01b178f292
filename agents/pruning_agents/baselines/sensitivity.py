"""Sensitivity-greedy: probe each group alone, then take channels where a saving costs least.

The heuristic behind most hand-made prunings (Li et al. 2017 choose their ratios from such curves).
It assumes that the losses of groups add up.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from pruning_agents.baselines.curves import MAX_PROBES, accuracy_curves
from pruning_agents.baselines.order import cheapest_first, order_action
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult


def sensitivity_greedy(
    env: gym.Env, evaluations: int, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Measure what pruning each group alone does to accuracy, and prune by loss per saving.

    1. From the dense network, each group alone is pruned to evenly spaced widths, down to its
       floor: as many as the evaluations allow, up to `MAX_PROBES` per group. Accuracy lost is
       interpolated between them, and never falls as a group shrinks.
    2. Unit by unit, the group that loses least accuracy per saving gives next, until the budget is
       met. A saving is what the unit takes off the budgets' usage at the current counts; for
       budgets that have no closed form, off the parameters.
    3. The outcome is judged: one evaluation.

    With too few evaluations for one probe per group, all groups count as equally sensitive, which
    is the cheapest saving first.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: evaluations to spend at most, at least 1.
        seed: ignored, nothing is drawn.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when the budget cannot be met in this way.

    Raises:
        ValueError: if `evaluations` is below 1, or for another kind of action.
    """
    del seed
    with BudgetedSearch("sensitivity-greedy", env, evaluations, progress_bar) as search:
        probes = min(MAX_PROBES, (evaluations - 1) // search.groups)
        costs = [np.diff(curve) for curve in accuracy_curves(search.dynamics, probes)]
        search.finish([order_action(search.dynamics, cheapest_first(search.dynamics, costs))])
        return search.result
