"""What learns, as a registered agent."""

from __future__ import annotations

import gymnasium as gym

from pruning_agents.search.registry import AgentEntry
from pruning_agents.search.result import Search
from pruning_agents.search.training import Learner, begin, train

__all__ = ["learner_entry"]


def learner_entry(learner: Learner, summary: str) -> AgentEntry:
    """A learner as a registered agent: trained from its seed until its evaluations are spent."""

    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        return train(begin(learner, env, seed), evaluations, progress_bar)[0]

    return AgentEntry(learner.name, summary, search, learner=learner)
