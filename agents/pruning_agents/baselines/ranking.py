"""One importance threshold for the whole network: how many channels of each group fall below it.

The classical heuristic, for any importance. It needs no search: the ranking says which counts to
take, and one evaluation says what they are worth. Rules of a fixed importance are in rules.py.
"""

from __future__ import annotations

import gymnasium as gym

from pruning_agents.baselines.rules import follow_rule, mean_scores, raw_scores, threshold
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult


def global_ranking(
    env: gym.Env,
    importance: str,
    *,
    normalised: bool,
    agent: str = "global-ranking",
    progress_bar: bool = False,
) -> SearchResult | None:
    """Remove the least important channels of the network until the budget is met; one evaluation.

    The ranking gives the counts. Which channels of a group go is the environment's own ranking, as
    for every method, so that methods differ in their counts only.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        importance: a registered importance, measured on search-train on the dense network.
        normalised: whether scores are first divided by their group's mean. Weight norms need it:
            they depend on a layer's fan-in, and raw ones would empty whole layers. Taylor scores
            are in units of the loss in every group, and the raw ones say more.
        agent: name in the result.
        progress_bar: whether to show the evaluation on the standard error stream.

    Returns:
        The result, or None when the budget cannot be met in this way.

    Raises:
        ValueError: for an unknown importance, or another kind of action.
    """
    measured = mean_scores if normalised else raw_scores
    with BudgetedSearch(agent, env, 1, progress_bar) as search:
        scores = measured(search.dynamics, importance)
        search.finish([threshold(search.dynamics, scores)])
        return search.result


def global_l1(
    env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """One threshold on the l1 norms of filters, each in units of its group's mean.

    Li et al. 2017 ("Pruning Filters for Efficient ConvNets") with the normalisation that a global
    threshold needs. Of `evaluations`, one is spent; `seed` is ignored. Result as `global_ranking`.
    """
    return follow_rule("global-l1", env, evaluations, seed, progress_bar=progress_bar)


def global_taylor(
    env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """One threshold on first-order estimates of the loss.

    Molchanov et al. 2019 ("Importance Estimation for Neural Network Pruning"), whose gate scores
    are compared across layers as they are. Of `evaluations`, one is spent; `seed` is ignored.
    Result as `global_ranking`.
    """
    return follow_rule("global-taylor", env, evaluations, seed, progress_bar=progress_bar)
