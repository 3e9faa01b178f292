"""`CNNPruneVecEnv`: the vector environment as Stable-Baselines3 wants it.

A translation of interfaces, nothing else: lists of infos instead of dicts of arrays, one `done`
instead of two flags. Knows nothing of pruning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import VecEnv

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv, SlotStep
from pruning_env.process.observations import Observation, stack


class CNNPruneVecEnv(VecEnv):
    """Stable-Baselines3's interface to a `CNNPruneVectorEnv`, whose slots it moves.

    `get_attr`, `set_attr` and `env_method` reach the slots, each of which is a `CNNPruneEnv`.

    Args:
        envs: from `gym.make_vec("CNNPrune-v0", ...)`, without wrappers: Stable-Baselines3 brings
            its own (`VecMonitor`, `VecNormalize`, ...).

    Attributes:
        envs: as given.

    Raises:
        ValueError: `envs` is something else.
    """

    def __init__(self, envs: gym.vector.VectorEnv) -> None:
        if not isinstance(envs, CNNPruneVectorEnv):
            raise ValueError(
                f"envs={envs!r} is not allowed; give gym.make_vec('CNNPrune-v0', ...) without "
                "wrappers"
            )
        self.envs = envs
        self._actions: np.ndarray | None = None
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Observation:
        """Start all episodes anew, with what `seed` and `set_options` gave since the last time."""
        starts = [
            slot.reset(seed=seed, options=options)
            for slot, seed, options in zip(self.envs.slots, self._seeds, self._options, strict=True)
        ]
        self.envs.episodes.begin(slice(None))
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [info for _, info in starts]
        return stack([observation for observation, _ in starts])

    def step_async(self, actions: np.ndarray) -> None:
        """Take the (N, ...) actions; `step_wait` makes the step."""
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
        steps = self.envs.step_slots(self._actions)
        for index, step in enumerate(steps):
            if step.restart is not None:
                self.reset_infos[index] = step.restart[1]
        return (
            stack([s.observation if s.restart is None else s.restart[0] for s in steps]),
            np.array([step.reward for step in steps], dtype=np.float32),
            np.array([step.terminated or step.truncated for step in steps], dtype=np.bool_),
            [_info(step) for step in steps],
        )

    def close(self) -> None:
        """Close the vector environment."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One picture per slot, or None each without `render_mode="rgb_array"`."""
        if self.render_mode != "rgb_array":
            return [None] * self.num_envs
        return [np.asarray(slot.render()) for slot in self.envs.slots]

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The attribute of each of the slots."""
        return [getattr(slot, attr_name) for slot in self._targets(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set the attribute of each of the slots."""
        for slot in self._targets(indices):
            setattr(slot, attr_name, value)

    def env_method(
        self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any
    ) -> list[Any]:
        """What the method of each of the slots returns."""
        return [
            getattr(slot, method_name)(*method_args, **method_kwargs)
            for slot in self._targets(indices)
        ]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        """False for each: slots are bare environments."""
        return [False for _ in self._targets(indices)]

    def _targets(self, indices: Any) -> list[CNNPruneEnv]:
        return [self.envs.slots[index] for index in self._get_indices(indices)]


def _info(step: SlotStep) -> dict[str, Any]:
    info = {**step.info, "TimeLimit.truncated": step.truncated and not step.terminated}
    if step.restart is not None:
        info["terminal_observation"] = step.observation
    return info
