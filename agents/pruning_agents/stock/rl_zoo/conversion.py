"""From the settings of an agent to what RL Baselines3 Zoo expects."""

from __future__ import annotations

import inspect
from typing import Any

from pruning_agents.stock.sb3_agents import ACTION_NOISE, REWARD_SCALE, stock_agents
from pruning_agents.stock.scaling import ScaledReward
from pruning_agents.stock.settings import read_settings, settings_file
from pruning_env.envs.cnn_prune import CNNPruneEnv

TIMESTEPS = 2_000
"""Steps of a run where `-n` does not say; an evaluation each, unless one is answered by a cache."""


def hyperparams(agent: str) -> dict[str, dict[str, Any]]:
    """By environment id: the settings of `cnnprune train`, and what else the Zoo wants to know.

    Raises:
        ValueError: there is no such agent of Stable-Baselines3 or, without sb3-contrib, of it.
    """
    known = {each.name: each for each in stock_agents()}
    if agent not in known:
        raise ValueError(f"agent={agent!r} is unknown; allowed: {', '.join(known)}")
    task = inspect.signature(CNNPruneEnv).parameters["task"].default
    # What `pruning_agents.stock.settings.task_of` says of the environments as the Zoo makes them.
    others = ("CNNPruneTabular-v0", "CNNPruneWorlds-v0")
    tasks = {"CNNPrune-v0": task, **{each: each for each in others}}
    file, allowed = settings_file(agent), known[agent].allowed_settings()
    return {
        env_id: _for_zoo(
            # Of the worlds alone, an episode is one action where nobody says anything.
            read_settings(file, task, allowed, one_step=env_id == "CNNPruneWorlds-v0")
        )
        for env_id, task in tasks.items()
    }


def _for_zoo(settings: dict[str, Any]) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    if ACTION_NOISE in settings:
        ours |= {"noise_type": "normal", "noise_std": settings.pop(ACTION_NOISE)}
    if REWARD_SCALE in settings:
        wrapper = f"{ScaledReward.__module__}.{ScaledReward.__name__}"
        ours["env_wrapper"] = [{wrapper: {"scale": settings.pop(REWARD_SCALE)}}]
    return {"n_timesteps": TIMESTEPS, "policy": "MlpPolicy", **settings, **ours}
