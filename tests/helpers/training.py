"""What tests that train Stable-Baselines3 agents share: small settings, environments, weights."""

from __future__ import annotations

from typing import Any

import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from pruning_agents import PPOLagrangian
from tests.helpers.cmdps import Episode, LayersEnv, QuadraticEnv, ScriptedEnv

SMALL: dict[str, Any] = {
    "n_steps": 16,
    "batch_size": 16,
    "n_epochs": 2,
    "device": "cpu",
    "seed": 3,
}
TINY: dict[str, Any] = {"n_steps": 8, "batch_size": 4, "n_epochs": 1, "device": "cpu", "seed": 0}


def quadratic(n_envs: int = 2, seed: int = 0, **arguments: Any) -> VecEnv:
    return make_vec_env(QuadraticEnv, n_envs, seed=seed, env_kwargs=arguments)


def layers(n_envs: int = 2, seed: int = 0) -> VecEnv:
    return make_vec_env(LayersEnv, n_envs, seed=seed)


def scripted(costs: tuple[Episode, ...], **arguments: Any) -> VecEnv:
    return DummyVecEnv([lambda: Monitor(ScriptedEnv(costs, **arguments))])


def plain(env: VecEnv, **arguments: Any) -> PPOLagrangian:
    """An agent with plain projected gradient ascent and rollouts of 8 steps."""
    return PPOLagrangian(
        "MlpPolicy", env, controller="lagrangian", **{"multiplier_lr": 0.1, **TINY, **arguments}
    )


def weights(agent: BaseAlgorithm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in agent.policy.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
