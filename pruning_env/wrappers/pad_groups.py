"""`PadGroups`: pads observations and actions, so that several networks share one policy.

Networks with different numbers of groups then have spaces of the same size. Knows the layout of a
flat observation, and nothing of what its numbers mean.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.observations import GLOBAL_FEATURES

__all__ = ["PadGroups", "padded_rows"]


def padded_rows(table: np.ndarray, groups: int) -> np.ndarray:
    """(N, F + 1) float32 of (L, F): rows of 0 behind, a last column that is 1 in the first L."""
    rows = np.zeros((groups, table.shape[1] + 1), dtype=np.float32)
    rows[: len(table), :-1] = table
    rows[: len(table), -1] = 1.0
    return rows


class PadGroups(
    gym.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    gym.utils.RecordConstructorArgs,
):
    """Observations and actions for N groups, of which the first L are the network's.

    Each row of the observation's table gets one more number at its end, `present`: 1 in the rows of
    the network's groups and 0 in the others, in which everything is 0. The globals follow as
    before. So a table of L rows of F numbers becomes one of N rows of F + 1. An action has N
    entries, and those beyond the first L do nothing; one that is not per group stays as it is.

    Environments with equal N, budgets in equal number and either with or without `max_steps` have
    equal spaces, and fit into one `SyncVectorEnv` or SB3 `DummyVecEnv`. The agents' groupwise
    network reads padded observations with `padded=True`, by the weights that read unpadded ones.

    Args:
        env: `CNNPrune-v0` or `CNNPruneTabular-v0` with `observation="flat"`.
        groups: N, at least the network's number of groups.

    Attributes:
        groups: N.
        group_features: F + 1.

    Raises:
        ValueError: another environment, observation or action, or fewer groups than it has.
    """

    def __init__(self, env: gym.Env[np.ndarray, np.ndarray], groups: int) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, groups=groups)
        super().__init__(env)
        inner = env.unwrapped
        if not isinstance(inner, CNNPruneEnv) or not isinstance(env.observation_space, spaces.Box):
            raise ValueError(
                f"env={env} is not allowed; give CNNPrune-v0 or CNNPruneTabular-v0 with "
                "observation='flat'"
            )
        if not isinstance(env.action_space, spaces.Box):
            raise ValueError(
                f"env={env} has actions in {env.action_space}; give one with a Box, such as "
                "action='distribution'"
            )
        own = len(inner.graph.groups)
        if not isinstance(groups, int) or isinstance(groups, bool) or groups < own:
            raise ValueError(
                f"groups={groups!r} is not allowed; give an integer of at least {own}, the number "
                "of the network's groups"
            )
        self.groups = groups
        self._own = own
        self._features = inner.observation_names.index(GLOBAL_FEATURES[0].name) // own
        self.group_features = self._features + 1
        inside = env.observation_space
        self.observation_space = spaces.Box(
            self._bound(inside.low, 0.0), self._bound(inside.high, 1.0), dtype=np.float32
        )
        self._per_group = env.action_space.shape == (own,)
        if self._per_group:
            ends = env.action_space.low[0], env.action_space.high[0]
            self.action_space = spaces.Box(*ends, (groups,), np.float32)

    def step(
        self, action: np.ndarray
    ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, padded.

        Raises:
            ValueError: a bad action; the entries of absent groups are not looked at.
        """
        observation, *rest = self.env.step(self._cut(action))
        return self._padded(observation), *rest  # type: ignore[return-value]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As the environment's, padded."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._padded(observation), info

    def _cut(self, action: np.ndarray) -> np.ndarray:
        if not self._per_group:
            return action
        given = np.asarray(action)
        if given.shape != (self.groups,):
            raise ValueError(
                f"action has shape {given.shape}; give a vector of {self.groups} real numbers"
            )
        return given[: self._own]

    def _padded(self, observation: np.ndarray) -> np.ndarray:
        """(N · (F + 1) + G,) float32 of (L · F + G,)."""
        table, tail = self._parts(observation)
        return np.concatenate([padded_rows(table, self.groups).ravel(), tail])

    def _bound(self, bound: np.ndarray, present: float) -> np.ndarray:
        """A bound of the padded space: every row is bounded as the first is."""
        table, tail = self._parts(bound)
        row = np.append(table[0], present)
        return np.concatenate([np.tile(row, self.groups), tail]).astype(np.float32)

    def _parts(self, flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        size = self._own * self._features
        return flat[:size].reshape(self._own, self._features), flat[size:]
