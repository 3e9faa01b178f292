"""nevergrad: its optimiser asked for one action that spreads the whole budget."""

from __future__ import annotations

import gymnasium as gym
import nevergrad as ng
import numpy as np

from benchmarks.clients.scripts.short import ENV_ID, ONE_STEP

env = gym.make(ENV_ID, **ONE_STEP)


def error(action: np.ndarray) -> float:
    """Error of what is left."""
    env.reset()
    *_, terminated, _, info = env.step(action.astype(np.float32))
    assert terminated and info["is_success"]
    return 1.0 - float(info["accuracy"])


space = env.action_space
assert isinstance(space, gym.spaces.Box)
parameters = ng.p.Array(shape=space.shape).set_bounds(-1.0, 1.0)
best = ng.optimizers.NGOpt(parametrization=parameters, budget=30).minimize(error)
assert error(best.value) < 0.7
