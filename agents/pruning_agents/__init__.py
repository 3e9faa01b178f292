"""Agents that search prunings in the environments of `pruning_env`, and the baselines beside them.

They use the environments' public interface; the environments do not know them.
"""

from pruning_agents.baselines import random_search, uniform
from pruning_agents.ppo_lagrangian.algorithm import PPOLagrangian
from pruning_agents.rl_pruner.algorithm import RLPruner
from pruning_agents.rl_pruner.distribution_policy import DistributionPolicy
from pruning_agents.rl_pruner.groupwise_policy import GroupwisePolicy
from pruning_agents.search.registry import (
    AgentEntry,
    Search,
    agent_names,
    get_agent,
    register_agent,
)
from pruning_agents.search.result import SearchResult

__all__ = [
    "AgentEntry",
    "DistributionPolicy",
    "GroupwisePolicy",
    "PPOLagrangian",
    "RLPruner",
    "Search",
    "SearchResult",
    "agent_names",
    "get_agent",
    "random_search",
    "register_agent",
    "uniform",
]
