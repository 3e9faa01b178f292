"""Agents that search prunings in the environments of `pruning_env`, and the baselines beside them.

They use the environments' public interface; the environments do not know them. The names exported
here are what other programs import; the rooms below may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning_agents.baselines.beam import beam_search
    from pruning_agents.baselines.cem import cem
    from pruning_agents.baselines.hill_climbing import hill_climbing
    from pruning_agents.baselines.ranking import global_l1, global_taylor
    from pruning_agents.baselines.rules import best_of_rules
    from pruning_agents.baselines.sampling import random_policy, random_search
    from pruning_agents.baselines.sensitivity import sensitivity_greedy
    from pruning_agents.baselines.uniform import uniform
    from pruning_agents.comparison.cells import Cell, run_cell
    from pruning_agents.comparison.questions import questions
    from pruning_agents.comparison.rows import read_rows
    from pruning_agents.comparison.statistics import (
        bootstrap,
        interquartile_mean,
        paired_difference,
        probability_of_improvement,
    )
    from pruning_agents.comparison.table import verdict
    from pruning_agents.ppo_lagrangian.algorithm import PPOLagrangian
    from pruning_agents.ppo_lagrangian.projection import projected_end
    from pruning_agents.rl_pruner.algorithm import RLPruner
    from pruning_agents.rl_pruner.distribution_policy import DistributionPolicy
    from pruning_agents.rl_pruner.groupwise_policy import GroupwisePolicy
    from pruning_agents.search.budgeted_search import BudgetedSearch
    from pruning_agents.search.distribution import perturb
    from pruning_agents.search.recording import EvaluationsSpent, IncumbentRecorder
    from pruning_agents.search.registry import AgentEntry, agent_names, get_agent, register_agent
    from pruning_agents.search.result import Search, SearchResult
    from pruning_agents.search.rows import provenance
    from pruning_agents.search.training import StopAtEvaluations
    from pruning_agents.stock.groupwise import GroupwiseExtractor
    from pruning_agents.stock.vectorised import vectorised_ppo

__all__ = [
    "AgentEntry",
    "BudgetedSearch",
    "Cell",
    "DistributionPolicy",
    "EvaluationsSpent",
    "GroupwiseExtractor",
    "GroupwisePolicy",
    "IncumbentRecorder",
    "PPOLagrangian",
    "RLPruner",
    "Search",
    "SearchResult",
    "StopAtEvaluations",
    "agent_names",
    "beam_search",
    "best_of_rules",
    "bootstrap",
    "cem",
    "get_agent",
    "global_l1",
    "global_taylor",
    "hill_climbing",
    "interquartile_mean",
    "paired_difference",
    "perturb",
    "probability_of_improvement",
    "projected_end",
    "provenance",
    "questions",
    "random_policy",
    "random_search",
    "read_rows",
    "register_agent",
    "run_cell",
    "sensitivity_greedy",
    "uniform",
    "vectorised_ppo",
    "verdict",
]

#: Where each exported name lives, so that it is loaded when it is first used (PEP 562).
_HOMES = {
    "AgentEntry": "search.registry",
    "BudgetedSearch": "search.budgeted_search",
    "Cell": "comparison.cells",
    "DistributionPolicy": "rl_pruner.distribution_policy",
    "EvaluationsSpent": "search.recording",
    "GroupwiseExtractor": "stock.groupwise",
    "GroupwisePolicy": "rl_pruner.groupwise_policy",
    "IncumbentRecorder": "search.recording",
    "PPOLagrangian": "ppo_lagrangian.algorithm",
    "RLPruner": "rl_pruner.algorithm",
    "Search": "search.result",
    "SearchResult": "search.result",
    "StopAtEvaluations": "search.training",
    "agent_names": "search.registry",
    "beam_search": "baselines.beam",
    "best_of_rules": "baselines.rules",
    "bootstrap": "comparison.statistics",
    "cem": "baselines.cem",
    "get_agent": "search.registry",
    "global_l1": "baselines.ranking",
    "global_taylor": "baselines.ranking",
    "hill_climbing": "baselines.hill_climbing",
    "interquartile_mean": "comparison.statistics",
    "paired_difference": "comparison.statistics",
    "perturb": "search.distribution",
    "probability_of_improvement": "comparison.statistics",
    "projected_end": "ppo_lagrangian.projection",
    "provenance": "search.rows",
    "questions": "comparison.questions",
    "random_policy": "baselines.sampling",
    "random_search": "baselines.sampling",
    "read_rows": "comparison.rows",
    "register_agent": "search.registry",
    "run_cell": "comparison.cells",
    "sensitivity_greedy": "baselines.sensitivity",
    "uniform": "baselines.uniform",
    "vectorised_ppo": "stock.vectorised",
    "verdict": "comparison.table",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
