"""Agents that search prunings in the environments of `pruning_env`, and the baselines beside them.

They use the environments' public interface; the environments do not know them.
"""

from agents.baselines import random_search, uniform
from agents.distribution_policy import DistributionPolicy
from agents.groupwise_policy import GroupwisePolicy
from agents.ppo_lagrangian import PPOLagrangian
from agents.registry import AgentEntry, Search, agent_names, get_agent, register_agent
from agents.result import SearchResult
from agents.rl_pruner import RLPruner

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
