"""Agents that search prunings in the environments of `pruning_env`, and the baselines beside them.

They use the environments' public interface; the environments do not know them. The names exported
here are what other programs import; the rooms below may change.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning_agents.baselines.sampling import random_search
    from pruning_agents.baselines.uniform import uniform
    from pruning_agents.ppo_lagrangian.algorithm import PPOLagrangian
    from pruning_agents.rl_pruner.algorithm import RLPruner
    from pruning_agents.rl_pruner.distribution import perturb
    from pruning_agents.rl_pruner.distribution_policy import DistributionPolicy
    from pruning_agents.rl_pruner.groupwise_policy import GroupwisePolicy
    from pruning_agents.search.budgeted_search import BudgetedSearch
    from pruning_agents.search.recording import IncumbentRecorder
    from pruning_agents.search.registry import AgentEntry, agent_names, get_agent, register_agent
    from pruning_agents.search.result import Search, SearchResult
    from pruning_agents.search.training import StopAtEvaluations
    from pruning_agents.stock.groupwise import GroupwiseExtractor

__all__ = [
    "AgentEntry",
    "BudgetedSearch",
    "DistributionPolicy",
    "GroupwiseExtractor",
    "GroupwisePolicy",
    "IncumbentRecorder",
    "PPOLagrangian",
    "RLPruner",
    "Search",
    "SearchResult",
    "StopAtEvaluations",
    "agent_names",
    "get_agent",
    "perturb",
    "random_search",
    "register_agent",
    "uniform",
]

#: Where each exported name lives, so that it is loaded when it is first used (PEP 562).
_HOMES = {
    "AgentEntry": "search.registry",
    "BudgetedSearch": "search.budgeted_search",
    "DistributionPolicy": "rl_pruner.distribution_policy",
    "GroupwiseExtractor": "stock.groupwise",
    "GroupwisePolicy": "rl_pruner.groupwise_policy",
    "IncumbentRecorder": "search.recording",
    "PPOLagrangian": "ppo_lagrangian.algorithm",
    "RLPruner": "rl_pruner.algorithm",
    "Search": "search.result",
    "SearchResult": "search.result",
    "StopAtEvaluations": "search.training",
    "agent_names": "search.registry",
    "get_agent": "search.registry",
    "perturb": "rl_pruner.distribution",
    "random_search": "baselines.sampling",
    "register_agent": "search.registry",
    "uniform": "baselines.uniform",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
