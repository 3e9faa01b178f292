"""Stable-Baselines3's algorithms, and `PPOLagrangian`, as registered agents."""

from __future__ import annotations

from pruning_agents.search.learner_entry import learner_entry
from pruning_agents.search.registry import AgentEntry
from pruning_agents.stock.sb3_agents import stock_agents

__all__ = ["entry"]


def entry(name: str, summary: str) -> AgentEntry:
    """The algorithm of that name with the settings of its file."""
    (agent,) = (agent for agent in stock_agents() if agent.name == name)
    return learner_entry(agent.learner, summary)
