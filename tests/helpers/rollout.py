"""Random episodes, written down; light enough to import in a process of its own."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

Row = tuple[np.ndarray, float, bool, dict[str, Any]]


def trajectory(env: gym.Env, steps: int, seed: int = 0) -> list[Row]:
    """(observation, reward, terminated, info) of `steps` random steps, resetting when done."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    rows: list[Row] = [(observation, 0.0, False, info)]
    for _ in range(steps):
        observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
        assert not truncated
        rows.append((observation, float(reward), terminated, info))
        if terminated:
            observation, info = env.reset()
            rows.append((observation, 0.0, False, info))
    return rows
