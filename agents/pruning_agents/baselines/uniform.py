"""The same fraction of every group: the pruning that needs no search."""

from __future__ import annotations

import gymnasium as gym

from pruning_agents.baselines.rules import follow_rule
from pruning_agents.search.result import SearchResult


def uniform(
    env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Prune the same fraction of every group until the budget is met; one evaluation.

    Args:
        env: a CNNPrune environment, which is not stepped.
        evaluations: at least 1, of which one is spent.
        seed: ignored, nothing is drawn.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when the budget cannot be met in this way.
    """
    return follow_rule("uniform", env, evaluations, seed, progress_bar=progress_bar)
