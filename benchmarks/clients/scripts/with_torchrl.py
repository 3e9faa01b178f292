"""TorchRL: single environments by their id, and vector environments that it restarts itself."""

from __future__ import annotations

import gymnasium as gym
from torchrl.envs import GymEnv, GymWrapper
from torchrl.envs.utils import check_env_specs

from benchmarks.clients.scripts.short import ENV_ID, QUICK

env = GymEnv(ENV_ID, **QUICK)
check_env_specs(env)
assert env.rollout(30, break_when_any_done=False)["next", "done"].any()

envs = GymWrapper(gym.make_vec(ENV_ID, num_envs=4, autoreset_mode="Disabled", **QUICK))
assert tuple(envs.rollout(30, break_when_any_done=False).shape) == (4, 30)
