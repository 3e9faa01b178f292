"""The settings of the agents as RL Baselines3 Zoo reads them: a module per algorithm.

```sh
pip install rl_zoo3
python -m rl_zoo3.train --algo ppo --env CNNPruneTabular-v0 --gym-packages pruning_env \
    --conf-file pruning_agents.stock.rl_zoo.ppo
```

trains with the Zoo's tools (evaluation, logging, Optuna) by the settings of `cnnprune train --agent
ppo`. Each module has what the Zoo asks for, `hyperparams`, made from the YAML file of the algorithm
in `stock/hyperparameters/` when it is imported. The Zoo knows nothing of prunings: the best one
is remembered by `cnnprune train` only.
"""
