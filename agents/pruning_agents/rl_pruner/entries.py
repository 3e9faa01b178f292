"""RL-Pruner's forms as registered agents."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor

from pruning_agents.rl_pruner.algorithm import RLPruner
from pruning_agents.rl_pruner.published import published, published_env
from pruning_agents.search.learner_entry import learner_entry
from pruning_agents.search.registry import AgentEntry, AsPublished
from pruning_agents.search.result import SearchResult
from pruning_agents.search.training import Learner

__all__ = ["entry"]

#: By name: the policy, and the arguments that differ from the defaults.
_FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "rl-pruner": ("DistributionPolicy", {}),
    "rl-pruner-from-rules": ("DistributionPolicy", {"warm_start": "rules"}),
    "rl-pruner-groupwise": ("GroupwisePolicy", {}),
    "rl-pruner-published": ("DistributionPolicy", published()),
}


def entry(name: str, summary: str) -> AgentEntry:
    """RLPruner in the form that the name stands for."""
    policy, arguments = _FORMS[name]

    def make(env: gym.Env, seed: int, tensorboard_log: str | None) -> BaseAlgorithm:
        return RLPruner(
            policy, Monitor(env), seed=seed, tensorboard_log=tensorboard_log, **arguments
        )

    def incumbent(agent: BaseAlgorithm) -> SearchResult | None:
        assert isinstance(agent, RLPruner)
        found = agent.incumbent
        return None if found is None else dataclasses.replace(found, agent=name)

    made = learner_entry(Learner(name, RLPruner, make, Monitor, incumbent, paced=True), summary)
    if name != "rl-pruner":
        return made
    return dataclasses.replace(made, published=AsPublished("rl-pruner-published", published_env()))
