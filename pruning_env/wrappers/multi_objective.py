"""`MultiObjectiveReward`: accuracy, parameters and MACs as a vector, as MO-Gymnasium has it.

Reads what the environments say in `info`; knows nothing of scalar rewards or budgets.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Keys of `info`, and whether more is better.
_OBJECTIVES = (("accuracy", 1.0), ("params", -1.0), ("macs", -1.0))


class MultiObjectiveReward(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """The reward is (accuracy, -params, -macs) where an episode ends, and zeros before.

    So an episode's undiscounted vector return is the point of its last network: search-val accuracy
    in [0, 1], and parameters and MACs / dense, negated because less is better. Whatever scalar
    reward the environment was made with is left out; with `reward="final"`, an episode costs one
    evaluation at most. MO-Gymnasium's convention: `reward_space` bounds the vector and its shape is
    the number of objectives; `env.unwrapped` gets both attributes too, since that is where
    MO-Gymnasium's wrappers look (`LinearReward(MultiObjectiveReward(env))`). With
    `constraint="cost"` an episode's end is the agent's choice of a trade-off; with the others it
    ends at a budget.

    Args:
        env: `CNNPrune-v0` or `CNNPruneTabular-v0`, wrapped or not.

    Attributes:
        reward_space: `Box` of shape (3,), float32.
        reward_dim: 3.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)
        bounds = np.array([[min(sign, 0.0), max(sign, 0.0)] for _, sign in _OBJECTIVES])
        low, high = bounds.astype(np.float32).T
        self.reward_space = spaces.Box(low, high, dtype=np.float32)
        self.reward_dim = len(_OBJECTIVES)
        inner: Any = self.unwrapped
        inner.reward_space, inner.reward_dim = self.reward_space, self.reward_dim

    def step(  # type: ignore[override]  # a vector for a number is what it is for
        self, action: Any
    ) -> tuple[Any, np.ndarray, bool, bool, dict[str, Any]]:
        """As the environment's, with a (3,) float32 reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = np.zeros(len(_OBJECTIVES), dtype=np.float32)
        if terminated or truncated:
            reward[:] = [sign * info[key] for key, sign in _OBJECTIVES]
        return observation, reward, terminated, truncated, info
