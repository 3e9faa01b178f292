"""The cross-entropy method over logits: a Gaussian that follows its best samples.

The standard of derivative-free search over distributions, which every agent here is measured by.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from pruning_agents.baselines.beginning import best_start
from pruning_agents.proposals.start import check_warm_start
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult


def cem(
    env: gym.Env,
    evaluations: int,
    seed: int = 0,
    *,
    population: int = 20,
    elite_fraction: float = 0.2,
    smoothing: float = 0.7,
    initial_std: float = 0.5,
    minimum_std: float = 0.03,
    warm_start: str = "uniform",
    progress_bar: bool = False,
) -> SearchResult | None:
    """Fit a diagonal Gaussian over actions to the best of its samples, again and again.

    The cross-entropy method for continuous optimisation (Kroese, Porotsky and Rubinstein 2006;
    Rubinstein and Kroese 2004, chapter 5). A candidate is an action drawn from N(mean, std²),
    clipped to the box and kept until the budget is met. After each population,
    mean <- smoothing · (mean of the elite) + (1 - smoothing) · mean, and std likewise. The first
    mean is the best of what `warm_start` has judged, or the zero action, which is uniform pruning.

    The elite is larger than the literature's tenth because populations are small here: a tenth of
    20 candidates has no standard deviation to speak of. `minimum_std` keeps it from stopping at the
    first distribution it likes, which Szita and Lőrincz (2006) do by adding noise. A population of
    nothing but repeat visits doubles the standard deviations, so that the search goes on elsewhere.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: evaluations to spend, at least 1. Repeat visits are free; the search gives up
            early when 20 draws per evaluation are not enough to spend them.
        seed: seed of the draws.
        population: candidates between two updates, at least 2.
        elite_fraction: in (0, 1], share of the population that the Gaussian is fitted to; never
            fewer than 2 candidates.
        smoothing: in (0, 1], weight of the new estimate.
        initial_std: first standard deviation of each logit, above 0; the box is 2 wide.
        minimum_std: smallest standard deviation, at least 0.
        warm_start: what is judged first: "none", "uniform", or what the "rules" of thumb propose.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when no candidate met the budget.

    Raises:
        ValueError: naming an argument that is out of range.
    """
    if population < 2:
        raise ValueError(f"population={population} must be at least 2")
    for name, share in (("elite_fraction", elite_fraction), ("smoothing", smoothing)):
        if not 0.0 < share <= 1.0:
            raise ValueError(f"{name}={share} must be above 0 and at most 1")
    if not initial_std > 0.0:
        raise ValueError(f"initial_std={initial_std} must be above 0")
    if not minimum_std >= 0.0:
        raise ValueError(f"minimum_std={minimum_std} must be at least 0")
    check_warm_start(warm_start)
    rng = np.random.default_rng(seed)
    elites = max(2, round(elite_fraction * population))
    with BudgetedSearch("cem", env, evaluations, progress_bar) as search:
        mean = best_start(search, warm_start)
        std = np.full(search.groups, initial_std)
        while search.left:
            noise = rng.standard_normal((population, search.groups))
            actions = np.clip(mean + std * noise, -1.0, 1.0)
            before = search.spent
            values = search.worth(actions)
            elite = actions[np.argsort(values, kind="stable")[::-1][:elites]]
            mean = smoothing * elite.mean(axis=0) + (1.0 - smoothing) * mean
            std = smoothing * elite.std(axis=0) + (1.0 - smoothing) * std
            std = np.maximum(std, minimum_std)
            if search.spent == before:
                std = np.minimum(2.0 * std, initial_std)
        return search.result
