"""How the policy learns: from what searches found, and by trying.

Knows nothing of files or tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from tqdm import tqdm

from pruning_agents.stock.groupwise import GroupwiseActorCriticPolicy
from pruning_agents.zero_shot.demonstrations import Demonstration, removed_shares
from pruning_agents.zero_shot.policy import mean_actions, policy_arguments, worlds_of

__all__ = ["imitate", "improve"]

PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 128,
    "batch_size": 64,
    "n_epochs": 5,
    "learning_rate": 3e-4,
    "clip_range": 0.2,
    "ent_coef": 0.0,
}
_LOG_STD = -1.5  # of actions in [-1, 1]
_OUTSIDE = 0.1  # weight of what means are beyond the box, where actions are clipped


def imitate(
    policy: GroupwiseActorCriticPolicy,
    env: gym.Env[Any, Any],
    demonstrations: Sequence[Demonstration],
    *,
    epochs: int = 300,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> list[float]:
    """Bring the policy's distributions close to those of the demonstrations.

    The loss is the cross-entropy between the shares of the channels that are gone, in what was
    found, and the shares that the policy's action asks for: what is a matter of taste, as a shift
    of all logits, costs nothing. Nothing is evaluated.

    Args:
        policy: Changed in place.
        env: `CNNPruneWorlds-v0` of the demonstrations' pool, with `action="distribution"`.
        demonstrations: At least one.
        epochs: Passes over them.
        learning_rate: Of AdamW, falling to 0 in a half cosine.
        weight_decay: Of AdamW.
        batch_size: Demonstrations in a step.
        seed: Of the order.
        progress: Whether to show a bar.

    Returns:
        The mean loss of each epoch.

    Raises:
        ValueError: There are no demonstrations, or the environment is another.
    """
    if not demonstrations:
        raise ValueError("demonstrations is empty; give at least one")
    observations, sizes, targets = _lesson(env, demonstrations)
    scale = worlds_of(env).episode.dynamics.action.logit_scale  # type: ignore[attr-defined]
    optimizer = torch.optim.AdamW(policy.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in tqdm(range(epochs), desc="imitation", disable=not progress):
        total = 0.0
        for batch in torch.randperm(len(targets), generator=generator).split(batch_size):
            means = mean_actions(policy, observations[batch])
            logits = sizes[batch].log() + scale * means  # absent groups: -inf
            likelihood = torch.log_softmax(logits, dim=1).masked_fill(sizes[batch] == 0, 0.0)
            loss = -(targets[batch] * likelihood).sum(1).mean()
            outside = (means.abs() - 1.0).clamp(min=0.0).square().mean()
            optimizer.zero_grad()
            (loss + _OUTSIDE * outside).backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        schedule.step()
        losses.append(total / len(targets))
    return losses


def _lesson(
    env: gym.Env[Any, Any], demonstrations: Sequence[Demonstration]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(M, D) observations, and (M, N) sizes and shares, 0 for absent groups."""
    inside = worlds_of(env)
    observations = []
    sizes = np.zeros((len(demonstrations), inside.rows), dtype=np.float32)
    targets = np.zeros_like(sizes)
    for row, shown in enumerate(demonstrations):
        observation, _ = env.reset(options=shown.question.options)
        observations.append(observation)
        own = inside.episode.graph.sizes
        sizes[row, : own.size] = own
        targets[row, : own.size] = removed_shares(own, shown.counts)
    return (
        torch.from_numpy(np.stack(observations)),
        torch.from_numpy(sizes),
        torch.from_numpy(targets),
    )


def improve(
    policy: GroupwiseActorCriticPolicy,
    env: gym.Env[Any, Any],
    episodes: int,
    *,
    seed: int = 0,
    progress: bool = False,
    **settings: Any,
) -> PPO:
    """Train the policy by PPO, from where it is; each episode of one action is one evaluation.

    Args:
        policy: Changed in place.
        env: `CNNPruneWorlds-v0`.
        episodes: Steps of the environment, rounded up to whole rollouts.
        seed: Of networks, budgets and noise.
        progress: Whether to show SB3's bar.
        **settings: Of PPO, instead of `PPO_SETTINGS`.
    """
    inside = worlds_of(env)
    algorithm = PPO(
        GroupwiseActorCriticPolicy,
        env,
        policy_kwargs={
            **policy_arguments(inside, policy.hidden),
            "log_std_init": _LOG_STD,
        },
        seed=seed,
        device="cpu",
        **{**PPO_SETTINGS, **settings},
    )
    start = {name: t for name, t in policy.state_dict().items() if name != "log_std"}
    algorithm.policy.load_state_dict(start, strict=False)
    algorithm.learn(episodes, progress_bar=progress)
    policy.load_state_dict(algorithm.policy.state_dict())
    return algorithm
