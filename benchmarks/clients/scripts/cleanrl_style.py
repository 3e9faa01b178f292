"""PPO in one file, with the wrappers and in the order in which CleanRL has them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.distributions import Normal

from benchmarks.clients.scripts.short import ENV_ID, QUICK

NUM_ENVS, NUM_STEPS, UPDATES, GAMMA, LAMBDA, CLIP = 2, 32, 2, 1.0, 0.95, 0.2


def make_env() -> gym.Env:
    """With the wrappers of `ppo_continuous_action.py`."""
    env: gym.Env = gym.make(ENV_ID, **QUICK)
    env = gym.wrappers.FlattenObservation(env)
    env = gym.wrappers.RecordEpisodeStatistics(env)
    env = gym.wrappers.ClipAction(env)
    env = gym.wrappers.NormalizeObservation(env)
    env = gym.wrappers.TransformObservation(
        env, lambda seen: np.clip(seen, -10, 10), env.observation_space
    )
    env = gym.wrappers.NormalizeReward(env, gamma=0.99)
    return gym.wrappers.TransformReward(env, lambda reward: min(max(float(reward), -10.0), 10.0))


envs = gym.vector.SyncVectorEnv(
    [make_env] * NUM_ENVS, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP
)
observed, acts = envs.single_observation_space.shape, envs.single_action_space.shape
assert observed is not None and acts is not None
critic = nn.Sequential(nn.Linear(observed[0], 64), nn.Tanh(), nn.Linear(64, 1))
actor = nn.Sequential(nn.Linear(observed[0], 64), nn.Tanh(), nn.Linear(64, acts[0]))
log_std = nn.Parameter(torch.zeros(acts[0]))
parameters = [*critic.parameters(), *actor.parameters(), log_std]
optimizer = torch.optim.Adam(parameters, lr=3e-4, eps=1e-5)

ended = 0
seen = torch.tensor(envs.reset(seed=1)[0], dtype=torch.float32)
done = torch.zeros(NUM_ENVS)
for _ in range(UPDATES):
    rows = []
    for _ in range(NUM_STEPS):
        with torch.no_grad():
            policy = Normal(actor(seen), log_std.exp())
            action = policy.sample()
            value = critic(seen)[:, 0]
        following, reward, terminated, truncated, infos = envs.step(action.numpy())
        rows.append(
            (seen, action, policy.log_prob(action).sum(1), torch.tensor(reward), value, done)
        )
        seen = torch.tensor(following, dtype=torch.float32)
        done = torch.tensor(terminated | truncated, dtype=torch.float32)
        if "final_info" in infos:
            assert (infos["final_info"]["episode"]["r"][infos["_final_info"]] != 0).all()
            ended += int(infos["_final_info"].sum())
    states, actions, log_probs, rewards, values, dones = map(torch.stack, zip(*rows, strict=True))
    advantages, last = torch.zeros(NUM_STEPS, NUM_ENVS), torch.zeros(NUM_ENVS)
    with torch.no_grad():
        next_value, next_done = critic(seen)[:, 0], done
        for step in reversed(range(NUM_STEPS)):
            delta = rewards[step] + GAMMA * next_value * (1 - next_done) - values[step]
            last = (delta + GAMMA * LAMBDA * (1 - next_done) * last).float()
            advantages[step] = last
            next_value, next_done = values[step], dones[step]
    for _ in range(2):
        policy = Normal(actor(states), log_std.exp())
        ratio = (policy.log_prob(actions).sum(2) - log_probs).exp()
        gain = torch.min(advantages * ratio, advantages * ratio.clamp(1 - CLIP, 1 + CLIP))
        error = (critic(states)[..., 0] - (advantages + values)) ** 2
        loss = -gain.mean() + 0.5 * error.mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
assert ended > 0 and torch.isfinite(loss)
