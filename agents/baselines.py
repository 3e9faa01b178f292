"""Baselines without learning: the same fraction of every group, and random distributions.

Both judge a whole distribution at once: one action is repeated until the budget is met and the
outcome is judged a single time, so one candidate costs one evaluation. They use the environment's
dynamics directly and never step it.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from agents.result import IncumbentTracker, SearchResult
from agents.rollout import feasible_end, finish

#: Candidates visited per evaluation before giving up: where a network has few distinct prunings,
#: nearly all are repeat visits, which the evaluator answers from its cache for free.
MAX_VISITS_PER_EVALUATION = 20


def uniform(env: gym.Env) -> SearchResult | None:
    """Prune the same fraction of every group until the budget is met; one evaluation.

    Args:
        env: a CNNPrune environment, which is not stepped.

    Returns:
        The result, or None when the budget cannot be met in this way.
    """
    dynamics = env.unwrapped.dynamics  # type: ignore[attr-defined]
    before = dynamics.evaluator.evaluations
    tracker = IncumbentTracker("uniform")
    end = finish(dynamics, dynamics.initial(), np.zeros(len(dynamics.graph.groups)))
    spent = dynamics.evaluator.evaluations - before
    if feasible_end(end):
        tracker.offer(end.state, spent)
    return tracker.result(spent)


def random_search(
    env: gym.Env, evaluations: int, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Judge random distributions and keep the best.

    A candidate is one action drawn uniformly from the action box [-1, 1]^L, repeated until the
    budget is met. The first is as random as the others: uniform pruning is not among them.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: evaluations to spend, at least 1. Repeat visits are free; the search gives up
            early when 20 draws per evaluation are not enough to spend them.
        seed: seed of the draws.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when no candidate met the budget.

    Raises:
        ValueError: if `evaluations` is below 1.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations={evaluations} must be at least 1")
    dynamics = env.unwrapped.dynamics  # type: ignore[attr-defined]
    before = dynamics.evaluator.evaluations
    rng = np.random.default_rng(seed)
    tracker = IncumbentTracker("random-search")
    start = dynamics.initial()
    spent = 0
    with tqdm(total=evaluations, desc="random-search", disable=not progress_bar) as bar:
        for _ in range(MAX_VISITS_PER_EVALUATION * evaluations):
            end = finish(dynamics, start, rng.uniform(-1.0, 1.0, len(dynamics.graph.groups)))
            bar.update(dynamics.evaluator.evaluations - before - spent)
            spent = dynamics.evaluator.evaluations - before
            if feasible_end(end):
                tracker.offer(end.state, spent)
            if spent >= evaluations:
                break
    return tracker.result(spent)
