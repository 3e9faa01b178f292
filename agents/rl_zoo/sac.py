"""Settings of `--algo sac` for RL Baselines3 Zoo."""

from agents.rl_zoo.conversion import hyperparams as _hyperparams

hyperparams = _hyperparams("sac")
