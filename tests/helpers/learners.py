"""Every registered agent that learns, on an environment that suits it and takes no time."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from stable_baselines3.common.base_class import BaseAlgorithm

import pruning_env  # noqa: F401
from pruning_agents.search.registry import agent_names, get_agent
from pruning_agents.search.training import Learner

LEARNERS = tuple(name for name in agent_names() if get_agent(name).learner is not None)

#: The table takes no constraints, so agents that learn from costs search the network behind it.
COSTS = {
    **{"constraint": "cost", "max_steps": 2, "action": "ratio", "reward": "final"},
    **{"round_to": 5, "recovery": "none", "val_images": 100},
}


def learner_of(name: str) -> Learner:
    learner = get_agent(name).learner
    assert learner is not None
    return learner


def env_for(name: str, **settings: Any) -> gym.Env:
    if name == "ppo-lagrangian":
        return gym.make("CNNPrune-v0", **{**COSTS, **settings})
    return gym.make("CNNPruneTabular-v0", **settings)


def equal(one: Any, other: Any) -> bool:
    """Whether nested containers hold equal values, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def same_parameters(one: BaseAlgorithm | None, other: BaseAlgorithm | None) -> bool:
    """Whether two agents have the same networks and the same states of their optimisers."""
    assert one is not None and other is not None
    return equal(one.get_parameters(), other.get_parameters())
