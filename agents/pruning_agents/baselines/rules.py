"""Rules of thumb as baselines: one evaluation each, and the best of them all.

What they propose is in `pruning_agents.proposals`.
"""

from __future__ import annotations

import gymnasium as gym

from pruning_agents.proposals.rules import RULES, rule_actions
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult

__all__ = ["best_of_rules", "follow_rule"]


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
        # The rule that probes is the last: where it would not be judged, its probes are spared.
        search.finish(rule_actions(search.dynamics, probes=search.left >= len(RULES)).values())
        return search.result
