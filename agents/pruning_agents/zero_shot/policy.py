"""The policy: from the observation of a dense network to the one action that prunes it; on disk.

Knows nothing of how it learned.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

from pruning_agents.stock.groupwise import GroupwiseActorCriticPolicy
from pruning_env.files import atomic_write
from pruning_env.worlds.env import CNNPruneWorldsEnv

__all__ = ["act", "load_policy", "make_policy", "save_policy", "worlds_of"]

HIDDEN = 64
"""Width of the embeddings."""


def worlds_of(env: gym.Env[Any, Any]) -> CNNPruneWorldsEnv:
    """The environment under its wrappers.

    Raises:
        ValueError: It is another, or its observations or actions are of kinds that are not read.
    """
    inside = env.unwrapped
    if not isinstance(inside, CNNPruneWorldsEnv):
        raise ValueError(f"env={env} is not allowed; give CNNPruneWorlds-v0")
    if not isinstance(inside.observation_space, spaces.Box):
        raise ValueError("env must be made with observation='flat'")
    return inside


def policy_arguments(env: CNNPruneWorldsEnv, hidden: int = HIDDEN) -> dict[str, Any]:
    """What `GroupwiseActorCriticPolicy` has to know of the environment's observations."""
    return {"group_features": env.group_features, "hidden": hidden, "padded": True}


def make_policy(
    env: gym.Env[Any, Any], *, seed: int = 0, hidden: int = HIDDEN
) -> GroupwiseActorCriticPolicy:
    """A policy that knows nothing yet; no global generator moves.

    Args:
        env: `CNNPruneWorlds-v0`.
        seed: of the initial weights.
        hidden: width of the embeddings.

    Raises:
        ValueError: as `worlds_of`.
    """
    inside = worlds_of(env)
    assert isinstance(inside.action_space, spaces.Box)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = GroupwiseActorCriticPolicy(
            inside.observation_space,
            inside.action_space,
            lambda _: 1e-3,
            **policy_arguments(inside, hidden),
        )
    return policy.eval()


def mean_actions(policy: GroupwiseActorCriticPolicy, observations: torch.Tensor) -> torch.Tensor:
    """(M, N) actions without noise, not clipped, of (M, D) observations."""
    actor: Any = policy.mlp_extractor
    return actor.forward_actor(observations)


def act(
    policy: GroupwiseActorCriticPolicy, observation: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(N,) the most likely action for a flat observation (D,), within the box."""
    with torch.inference_mode():
        means = mean_actions(policy, torch.from_numpy(observation)[None])[0]
    return means.clamp(-1.0, 1.0).numpy()


def save_policy(
    path: str | os.PathLike[str], policy: GroupwiseActorCriticPolicy, about: dict[str, Any]
) -> None:
    """Write `<path>.safetensors` and `<path>.json`, each whole or not at all.

    Args:
        path: without suffix.
        policy: whose weights to keep.
        about: what to remember of how it came about; of JSON's types.
    """
    tensors = {name: tensor.contiguous() for name, tensor in policy.state_dict().items()}
    facts = {"hidden": policy.hidden, "group_features": policy.group_features, **about}
    atomic_write(Path(f"{path}.safetensors"), save(tensors))
    atomic_write(Path(f"{path}.json"), json.dumps(facts, indent=1) + "\n")


def load_policy(path: str | os.PathLike[str], env: gym.Env[Any, Any]) -> GroupwiseActorCriticPolicy:
    """The policy that `save_policy` wrote, for an environment; nothing is unpickled.

    Args:
        path: without suffix.
        env: `CNNPruneWorlds-v0`, with any pool, and with as many budgets as it learned with.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: One is damaged, or the policy is for other observations.
    """
    for suffix in (".json", ".safetensors"):
        if not Path(f"{path}{suffix}").is_file():
            raise FileNotFoundError(f"policy: no file {path}{suffix}.")
    try:
        facts = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
        policy = make_policy(env, hidden=int(facts["hidden"]))
        policy.load_state_dict(load_file(f"{path}.safetensors"))
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"policy: {path} is damaged, or for other observations than those of {env}: {error}"
        ) from error
    _check_finite(path, policy)
    return policy


def _check_finite(path: str | os.PathLike[str], module: nn.Module) -> None:
    broken = [n for n, t in module.state_dict().items() if not t.isfinite().all()]
    if broken:
        raise ValueError(f"policy: {path} has values in {broken[0]} that are not finite")
