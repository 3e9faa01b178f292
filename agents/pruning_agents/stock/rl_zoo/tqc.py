"""Settings of `--algo tqc` for RL Baselines3 Zoo."""

from pruning_agents.stock.rl_zoo.conversion import hyperparams as _hyperparams

hyperparams = _hyperparams("tqc")
