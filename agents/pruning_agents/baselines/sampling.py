"""Chance: random distributions kept to the end, and the random policy that draws at every step.

The two differ. A distribution that is kept to the end is as uneven as it was drawn; one that is
drawn anew at every step averages out over an episode, to nearly uniform pruning.
"""

from __future__ import annotations

import dataclasses

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult
from pruning_env.process.dynamics import PruningState, Transition

#: Candidates judged together.
_BATCH = 32


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
    rng = np.random.default_rng(seed)
    with BudgetedSearch("random-search", env, evaluations, progress_bar) as search:
        while search.left:
            search.worth(rng.uniform(-1.0, 1.0, (min(_BATCH, search.left), search.groups)))
        return search.result


def random_policy(
    env: gym.Env, evaluations: int, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Run episodes of random actions and keep the best end; one evaluation per episode.

    Only ends are judged, so that an episode costs what a candidate of any other method costs. What
    one episode is worth on average, the anchor of normalised scores, is the mean of
    `random_policy_accuracies`. Arguments, result and errors as in `random_search`.
    """
    rng = np.random.default_rng(seed)
    with BudgetedSearch("random-policy", env, evaluations, progress_bar) as search:
        while search.left:
            _random_episodes(search, min(_BATCH, search.left), rng)
        return search.result


def random_policy_accuracies(env: gym.Env, episodes: int, seed: int = 0) -> NDArray[np.float64]:
    """(episodes,) search-val accuracy at the end of random episodes, feasible or not.

    Costs at most one evaluation each. The episodes are those of `random_policy` with the same seed.

    Raises:
        ValueError: if `episodes` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    rng = np.random.default_rng(seed)
    accuracies: list[float] = []
    with BudgetedSearch("random-policy", env, episodes) as search:
        while len(accuracies) < episodes:
            ends = _random_episodes(search, min(_BATCH, episodes - len(accuracies)), rng)
            accuracies += [end.state.metrics.accuracy for end in ends if end.state.metrics]
    return np.array(accuracies)


def _random_episodes(
    search: BudgetedSearch, episodes: int, rng: np.random.Generator
) -> list[Transition]:
    """Judge the ends of episodes whose every action is drawn uniformly from the box."""
    steps = [_last_step(search, rng) for _ in range(episodes)]
    return search.steps(*zip(*steps, strict=True))


def _last_step(
    search: BudgetedSearch, rng: np.random.Generator
) -> tuple[PruningState, NDArray[np.float64]]:
    """The state before the end of a random episode, and the action that ends it.

    The state carries the dense network's metrics, as in `pruning_agents.search.rollout.approach`.
    """
    dynamics, state = search.dynamics, search.start
    while True:
        action = rng.uniform(-1.0, 1.0, search.groups)
        following = dynamics.apply(state, action)
        if dynamics.terminal(following):
            return state, action
        state = dataclasses.replace(following, metrics=search.start.metrics)
