"""Sensitivity-greedy: probe each group alone, then take channels where a saving costs least.

The heuristic behind most hand-made prunings (Li et al. 2017 choose their ratios from such curves).
It assumes that the losses of groups add up.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pruning_agents.baselines.order import judge_order
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult
from pruning_env.process.dynamics import PruningDynamics

#: Probes per group at most; a finer curve only follows the noise of a finite search-val.
MAX_PROBES = 8


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
        losses = _loss_curves(search.dynamics, probes)
        judge_order(search, _cheapest_first(search.dynamics, losses))
        return search.result


def _loss_curves(dynamics: PruningDynamics, probes: int) -> list[NDArray[np.float64]]:
    """For each group, (units + 1,) accuracy lost when it alone has given 0, 1, ... units."""
    graph, units = dynamics.graph, dynamics.units
    left = units.left(graph.sizes)
    if probes == 0:
        return [np.linspace(0.0, 1.0, count + 1) for count in left]
    given = [
        np.unique(np.linspace(0, count, probes + 1).round().astype(np.int64)) for count in left
    ]
    masks = []
    for group, points in enumerate(given):
        for point in points[1:]:
            taken = np.where(np.arange(left.size) == group, point, 0)
            masks.append(graph.keep_top(dynamics.rank, units.take(graph.sizes, taken)))
    judged = iter(dynamics.evaluator.evaluate_many(masks))
    dense = dynamics.evaluator.dense.accuracy
    curves = []
    for count, points in zip(left, given, strict=True):
        lost = [0.0] + [dense - next(judged).accuracy for _ in points[1:]]
        curves.append(np.interp(np.arange(count + 1), points, np.maximum.accumulate(lost)))
    return curves


def _cheapest_first(
    dynamics: PruningDynamics, losses: list[NDArray[np.float64]]
) -> NDArray[np.int64]:
    """(U,) the group of each unit that can go, least accuracy lost per saving first."""
    units, sizes = dynamics.units, dynamics.graph.sizes
    left, given = units.left(sizes), np.zeros(sizes.size, dtype=np.int64)
    order = []
    while (given < left).any():
        one_more = np.where(np.eye(sizes.size, dtype=bool), given + 1, given)
        can = given < left
        saved = _usage(dynamics, units.take(sizes, given)) - _usage(
            dynamics, units.take(sizes, np.minimum(one_more, left))
        )
        lost = np.array(
            [
                float(curve[min(n + 1, curve.size - 1)] - curve[n])
                for curve, n in zip(losses, given.tolist(), strict=True)
            ]
        )
        # A unit that costs nothing is worth its saving: the flat parts of curves go first.
        price = (lost + 1e-6) / np.maximum(saved, 1e-12)
        order.append(int(np.argmin(np.where(can, price, np.inf))))
        given[order[-1]] += 1
    return np.array(order, dtype=np.int64)


def _usage(dynamics: PruningDynamics, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """(...,) usage of networks of `counts` (..., L), summed over budgets, as ratios to dense."""
    graph = dynamics.graph
    forms = {"params": graph.params_at, "macs": graph.macs_at}
    names = [budget.name for budget in dynamics.budgets if budget.closed_form] or ["params"]
    return np.sum(
        [np.asarray(forms[name](counts)) / float(forms[name](graph.sizes)) for name in names],
        axis=0,
    )
