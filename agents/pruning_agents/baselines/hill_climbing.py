"""Hill climbing: one candidate at a time, kept when it is no worse."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from pruning_agents.baselines.beginning import best_start
from pruning_agents.proposals.start import check_warm_start
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult

#: The step grows by this factor at a success and shrinks by its fourth root at a failure, so that
#: it settles where one candidate in five succeeds (Kern et al. 2004, the (1+1)-ES).
_GROWTH = 1.5


def hill_climbing(
    env: gym.Env,
    evaluations: int,
    seed: int = 0,
    *,
    initial_std: float = 0.6,
    minimum_std: float = 0.03,
    warm_start: str = "uniform",
    progress_bar: bool = False,
) -> SearchResult | None:
    """Disturb the best action so far, and keep the result when it is no worse.

    A (1+1) evolution strategy with the one-fifth success rule, from the best of what `warm_start`
    has judged, or the zero action, which is uniform pruning. After that one candidate depends on
    the one before, so nothing is judged together.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: evaluations to spend, at least 1. Repeat visits are free; the search gives up
            early when 20 draws per evaluation are not enough to spend them.
        seed: seed of the draws.
        initial_std: first standard deviation of the disturbance, above 0; the box is 2 wide.
        minimum_std: smallest standard deviation, at least 0.
        warm_start: what is judged first: "none", "uniform", or what the "rules" of thumb propose.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when no candidate met the budget.

    Raises:
        ValueError: naming an argument that is out of range.
    """
    if not initial_std > 0.0:
        raise ValueError(f"initial_std={initial_std} must be above 0")
    if not minimum_std >= 0.0:
        raise ValueError(f"minimum_std={minimum_std} must be at least 0")
    check_warm_start(warm_start)
    rng = np.random.default_rng(seed)
    with BudgetedSearch("hill-climbing", env, evaluations, progress_bar) as search:
        best = best_start(search, warm_start)
        # Judged already, but for warm_start="none": a repeat visit is free.
        value = search.worth([best])[0] if search.left else -np.inf
        std = initial_std
        while search.left:
            action = np.clip(best + std * rng.standard_normal(best.shape), -1.0, 1.0)
            reward = search.worth([action])[0]
            if reward >= value:
                best, value = action, reward
                std *= _GROWTH
            else:
                std = max(std * _GROWTH**-0.25, minimum_std)
        return search.result
