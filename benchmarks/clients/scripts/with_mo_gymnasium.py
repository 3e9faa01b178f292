"""MO-Gymnasium: its wrappers around a reward of three objectives."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from mo_gymnasium.wrappers import LinearReward, MORecordEpisodeStatistics

from benchmarks.clients.scripts.short import ENV_ID, QUICK
from pruning_env.wrappers import MultiObjectiveReward

env = MultiObjectiveReward(gym.make(ENV_ID, **QUICK, constraint="cost", max_steps=5))
recorded = LinearReward(MORecordEpisodeStatistics(env), weight=np.array([0.8, 0.1, 0.1]))
recorded.reset(seed=0)
over = False
while not over:
    _, reward, terminated, truncated, info = recorded.step(recorded.action_space.sample())
    assert np.ndim(reward) == 0
    over = terminated or truncated
assert info["episode"]["r"].shape == (3,)
