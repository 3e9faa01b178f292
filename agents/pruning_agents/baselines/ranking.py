"""One importance threshold for the whole network: how many channels of each group fall below it.

The classical heuristic. It needs no search: the ranking says which counts to take, and one
evaluation says what they are worth.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pruning_agents.baselines.order import judge_order
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult
from pruning_env.evaluation.importance.scores import normalise
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.rounding import WidthUnits


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
    with BudgetedSearch(agent, env, 1, progress_bar) as search:
        dynamics = search.dynamics
        # A fixed stream, as in the dynamics: "random" is one ranking, not one per seed.
        scores = dynamics.evaluator.scores(importance, rng=np.random.default_rng(0))
        if normalised:
            scores = normalise(dynamics.graph, scores)
        judge_order(search, _least_important_first(dynamics.graph, dynamics.units, scores))
        return search.result


def global_l1(
    env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """One threshold on the l1 norms of filters, each in units of its group's mean.

    Li et al. 2017 ("Pruning Filters for Efficient ConvNets") with the normalisation that a global
    threshold needs. Of `evaluations`, one is spent; `seed` is ignored. Result as `global_ranking`.
    """
    del evaluations, seed
    return global_ranking(env, "l1", normalised=True, agent="global-l1", progress_bar=progress_bar)


def global_taylor(
    env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """One threshold on first-order estimates of the loss.

    Molchanov et al. 2019 ("Importance Estimation for Neural Network Pruning"), whose gate scores
    are compared across layers as they are. Of `evaluations`, one is spent; `seed` is ignored.
    Result as `global_ranking`.
    """
    del evaluations, seed
    return global_ranking(
        env, "taylor", normalised=False, agent="global-taylor", progress_bar=progress_bar
    )


def _least_important_first(
    graph: ChannelGraph, units: WidthUnits, scores: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(U,) the group of each unit that can go, the unit with the lowest mean score first.

    Channels of a group form units from the least important one on; a partial unit goes first.
    """
    groups: list[int] = []
    means: list[float] = []
    for group, (size, left) in enumerate(zip(graph.sizes, units.left(graph.sizes), strict=True)):
        ascending = np.sort(scores[graph.group_index == group])
        for end in size - units.round_to * np.arange(left, 0, -1):
            groups.append(group)
            means.append(float(ascending[max(0, end - units.round_to) : end].mean()))
    return np.array(groups, dtype=np.int64)[np.argsort(means, kind="stable")]
