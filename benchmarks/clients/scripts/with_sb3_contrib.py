"""sb3-contrib: on-policy, off-policy and recurrent."""

from __future__ import annotations

import gymnasium as gym
from sb3_contrib import TQC, TRPO, RecurrentPPO

from benchmarks.clients.scripts.short import ENV_ID, QUICK

env = gym.make(ENV_ID, **QUICK)
TRPO("MlpPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu").learn(32)
RecurrentPPO("MlpLstmPolicy", env, n_steps=32, batch_size=32, seed=0, device="cpu").learn(32)
TQC("MlpPolicy", env, learning_starts=16, seed=0, device="cpu").learn(32)
