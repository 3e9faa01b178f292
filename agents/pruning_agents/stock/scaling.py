"""A wrapper that multiplies rewards, for agents whose critics want small numbers.

It knows nothing of what the rewards mean, and leaves what the environment says of itself alone.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym


class ScaledReward(gym.Wrapper):
    """The environment with rewards multiplied by a constant; `info` keeps the true numbers.

    Args:
        env: any environment.
        scale: finite and above 0.

    Raises:
        ValueError: `scale` is something else.
    """

    def __init__(self, env: gym.Env, scale: float) -> None:
        if not 0.0 < scale < float("inf"):
            raise ValueError(f"scale={scale!r} must be a finite number above 0")
        super().__init__(env)
        self.scale = scale

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, but for the reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, self.scale * float(reward), terminated, truncated, info
