"""Rules of thumb: one pruning each, without a search, and the best of them all.

What a practitioner would try first. A rule says what every channel costs and how costs make an
order; `order.py` turns that into an action. One evaluation says what it is worth, or an agent may
begin with it. Which channels of a group go is the environment's own ranking, as for every method,
so that methods differ in their counts only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pruning_agents.baselines.curves import MAX_PROBES, loss_curves
from pruning_agents.baselines.order import (
    Costs,
    cheapest_first,
    costs_of_scores,
    distribution_kind,
    lowest_first,
    order_action,
)
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult
from pruning_env.evaluation.importance.scores import normalise
from pruning_env.process.dynamics import PruningDynamics

__all__ = [
    "RULES",
    "Rule",
    "best_of_rules",
    "follow_rule",
    "knapsack",
    "lamp_scores",
    "mean_scores",
    "raw_scores",
    "rule_actions",
    "threshold",
]

Action = NDArray[np.floating]


@dataclass(frozen=True)
class Rule:
    """A pruning that needs no search.

    Attributes:
        action: gives the (L,) action of an environment's dynamics; evaluates nothing on search-val.
        probes: whether it judges many networks on search-train, which costs as much as evaluations.
    """

    action: Callable[[PruningDynamics], Action]
    probes: bool = False


def _uniform(dynamics: PruningDynamics) -> Action:
    """The same fraction of every group."""
    return np.zeros(len(dynamics.graph.groups), dtype=np.float32)


def raw_scores(dynamics: PruningDynamics, kind: str) -> NDArray[np.float64]:
    """(C,) scores of a registered importance, measured on the dense network."""
    # A fixed stream, as in the dynamics: "random" is one ranking, not one per seed.
    return dynamics.evaluator.scores(kind, rng=np.random.default_rng(0))


def mean_scores(dynamics: PruningDynamics, kind: str) -> NDArray[np.float64]:
    """(C,) scores in units of their group's mean: the average channel of every group has 1."""
    return normalise(dynamics.graph, raw_scores(dynamics, kind))


def threshold(dynamics: PruningDynamics, scores: NDArray[np.float64]) -> Action:
    """One threshold on (C,) scores for the whole network."""
    return order_action(dynamics, lowest_first(costs_of_scores(dynamics, scores)))


def knapsack(dynamics: PruningDynamics, scores: NDArray[np.float64]) -> Action:
    """The lowest (C,) score per MAC or parameter saved first, whatever the budgets count."""
    return order_action(dynamics, cheapest_first(dynamics, costs_of_scores(dynamics, scores)))


def lamp_scores(dynamics: PruningDynamics) -> NDArray[np.float64]:
    """(C,) layer-adaptive magnitudes, in (0, 1].

    Lee et al. 2021, "Layer-adaptive Sparsity for the Magnitude-based Pruning" (arXiv 2010.07611),
    scores a weight by its square over the sum of the squares of all weights of its layer that are
    no smaller. Carried over to channels: for a weight stands the Euclidean norm of the channel's
    own filters, the importance `l2` (layers that lose channels together have one vote each), and
    for its layer the group. The largest channel of every group has 1, so no group is emptied.
    """
    graph, squares = dynamics.graph, raw_scores(dynamics, "l2") ** 2
    scores = np.empty_like(squares)
    for group in graph.groups:
        here = slice(group.start, group.start + group.size)
        order = np.argsort(squares[here], kind="stable")
        ascending = squares[here][order]
        no_smaller = np.cumsum(ascending[::-1])[::-1]
        scores[here][order] = ascending / np.where(no_smaller > 0, no_smaller, 1.0)
    return scores


def _largest_drop_of_all(dynamics: PruningDynamics) -> Action:
    """Each group as narrow as a drop allows that is the same for all groups, as small as can be.

    The maximum rule of NVIDIA's FastNAS (Model Optimizer): from a curve per group of what pruning
    it alone does, the drop that all may have is bisected until the budget is met. Curves are of the
    loss, on search-train images, at up to `MAX_PROBES` widths a group.
    """
    distribution_kind(dynamics)  # before the curves, which take their time
    drops: Costs = [curve[1:] for curve in loss_curves(dynamics, MAX_PROBES)]
    return order_action(dynamics, lowest_first(drops))


RULES: dict[str, Rule] = {
    "uniform": Rule(_uniform),
    "global-taylor": Rule(
        lambda dynamics: threshold(dynamics, raw_scores(dynamics, "taylor")),
    ),
    "global-taylor-normalised": Rule(
        lambda dynamics: threshold(dynamics, mean_scores(dynamics, "taylor")),
    ),
    "global-taylor-per-saving": Rule(
        lambda dynamics: knapsack(dynamics, raw_scores(dynamics, "taylor")),
    ),
    "global-l1": Rule(
        lambda dynamics: threshold(dynamics, mean_scores(dynamics, "l1")),
    ),
    "global-l1-raw": Rule(
        lambda dynamics: threshold(dynamics, raw_scores(dynamics, "l1")),
    ),
    "global-l1-per-saving": Rule(
        lambda dynamics: knapsack(dynamics, mean_scores(dynamics, "l1")),
    ),
    "lamp": Rule(
        lambda dynamics: threshold(dynamics, lamp_scores(dynamics)),
    ),
    "sensitivity-maximum": Rule(
        _largest_drop_of_all,
        probes=True,
    ),
}
"""By the name under which each is a registered agent."""


def rule_actions(dynamics: PruningDynamics, *, probes: bool = True) -> dict[str, Action]:
    """The (L,) action of each rule that applies, by name.

    Left out are rules for which this environment has no answer: importances that a network or a
    table does not have.

    Args:
        dynamics: of the environment; nothing is evaluated on search-val.
        probes: whether rules that judge many networks on search-train are among them.

    Raises:
        ValueError: the environment's actions are no distributions.
    """
    distribution_kind(dynamics)
    actions = {}
    for name, rule in RULES.items():
        if rule.probes and not probes:
            continue
        try:
            actions[name] = rule.action(dynamics)
        except ValueError:
            continue
    return actions


def follow_rule(
    name: str, env: gym.Env, evaluations: int = 1, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Prune as the rule of that name says; one evaluation.

    Args:
        name: of a rule in `RULES`.
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: at least 1, of which one is spent.
        seed: ignored, nothing is drawn.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when the budget cannot be met in this way.

    Raises:
        ValueError: for another kind of action, or an importance that the environment lacks.
    """
    del seed
    with BudgetedSearch(name, env, min(evaluations, 1), progress_bar) as search:
        search.finish([RULES[name].action(search.dynamics)])
        return search.result


def best_of_rules(
    env: gym.Env, evaluations: int, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Judge what every rule proposes, and keep the best on search-val.

    What learning has to beat. It costs an evaluation a rule; with fewer, those are judged that come
    first in `RULES`. Arguments, result and errors as in `follow_rule`.
    """
    del seed
    with BudgetedSearch("best-of-rules", env, evaluations, progress_bar) as search:
        search.finish(rule_actions(search.dynamics).values())
        return search.result
