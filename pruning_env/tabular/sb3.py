"""`CNNPruneTabularVecEnv`: many episodes on the table as Stable-Baselines3 wants them.

A translation of interfaces, nothing else, as `CNNPruneVecEnv`. Knows nothing of pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from pruning_env.process.observations import Observation
from pruning_env.process.state import PruningState
from pruning_env.tabular.slot_places import row
from pruning_env.tabular.table_dynamics import Place
from pruning_env.tabular.vector_env import CNNPruneTabularVectorEnv

__all__ = ["CNNPruneTabularVecEnv"]


class CNNPruneTabularVecEnv(VecEnv):
    """Stable-Baselines3's interface to N episodes of `CNNPruneTabular-v0`, stepped as arrays.

    There is one environment for all slots, which `get_attr`, `set_attr` and `env_method` reach; its
    own episode is not used.

    Args:
        num_envs: N, at least 1.
        **arguments: those of `CNNPruneTabularEnv`, and `max_episode_steps`.

    Attributes:
        envs: the `CNNPruneTabularVectorEnv`.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(self, num_envs: int = 64, **arguments: Any) -> None:
        self.envs = CNNPruneTabularVectorEnv(num_envs, autoreset_mode="Disabled", **arguments)
        self._actions: np.ndarray | None = None
        self._last: Place | None = None
        spaces = self.envs.single_observation_space, self.envs.single_action_space
        super().__init__(num_envs, *spaces)

    def reset(self) -> Observation:
        """Start all episodes anew; options are not used."""
        observations, infos = self.envs.reset(seed=self._seeds[0])
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _slots(infos, self.num_envs)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Take the (N, L) actions; `step_wait` makes the step."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Prune every slot's network.

        Returns:
            (N, ...) observations, those of a new episode where one ended; (N,) float32 rewards;
            (N,) bool dones; and N infos, with `terminal_observation` where an episode ended.

        Raises:
            ValueError: a bad action, named by its slot; all slots stay as they were.
        """
        assert self._actions is not None
        observations, rewards, terminated, truncated, columns = self.envs.step(self._actions)
        dones = terminated | truncated
        infos = _slots(columns, self.num_envs)
        for info, short in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = short
        self._last = self.envs.places
        if dones.any():
            ended, last = np.flatnonzero(dones).tolist(), observations
            observations, columns = self.envs.reset(options={"reset_mask": dones})
            begun = _slots(columns, self.num_envs)
            for slot in ended:
                infos[slot]["terminal_observation"] = _of(last, slot)
                self.reset_infos[slot] = begun[slot]
        return observations, rewards.astype(np.float32), dones, infos

    def last_state(self, slot: int) -> PruningState:
        """Where a slot's episode was after the last step, before a new one began.

        Raises:
            ValueError: no step was made yet.
        """
        if self._last is None:
            raise ValueError(f"slot={slot!r}: no step was made yet")
        return row(self._last, slot).state()

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per slot, or None each without `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return list(self.envs.render() or ())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of the environment, once per slot."""
        return [getattr(self.envs.single, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the attribute of the environment, for all slots."""
        setattr(self.envs.single, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the method of the environment returns, called once per slot."""
        method = getattr(self.envs.single, method_name)
        return [method(*method_args, **method_kwargs) for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """False for each: there are no wrappers."""
        return [False for _ in self._get_indices(indices)]


def _of(observations: Observation, slot: int) -> Observation:
    """One slot's observation."""
    if isinstance(observations, dict):
        return {name: values[slot] for name, values in observations.items()}
    return observations[slot]


def _slots(infos: dict[str, Any], slots: int) -> list[dict[str, Any]]:
    """Gymnasium's arrays of infos as one dict per slot, without the masks."""
    columns = {
        name: _slots(values, slots) if isinstance(values, dict) else values.tolist()
        for name, values in infos.items()
        if not name.startswith("_")
    }
    if not columns:
        return [{} for _ in range(slots)]
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
