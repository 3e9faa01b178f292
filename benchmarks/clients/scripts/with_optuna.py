"""optuna: its sampler asked for one action that spreads the whole budget."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import optuna

from benchmarks.clients.scripts.short import ENV_ID, ONE_STEP

env = gym.make(ENV_ID, **ONE_STEP)


def objective(trial: optuna.Trial) -> float:
    """Accuracy of what is left."""
    action = [trial.suggest_float(f"group {i}", -1.0, 1.0) for i in range(6)]
    env.reset()
    *_, terminated, _, info = env.step(np.array(action, dtype=np.float32))
    assert terminated and info["is_success"]
    return float(info["accuracy"])


study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
study.optimize(objective, n_trials=30)
assert study.best_value > 0.3
