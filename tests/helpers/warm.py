"""Imported by the server of forks only: what is slow the first time in a process has happened here.

That is imports, torch's export and the reading of the solved tier's table. Nothing has gone back
through a network, since autograd's threads do not survive a fork.
"""

from __future__ import annotations

import importlib

import gymnasium as gym
import torch

torch.set_num_threads(1)
for module in (
    *("pruning_env", "pruning_agents.cli.train", "pruning_agents.cli.prune"),
    *("pruning_agents.stock.sb3_agents", "benchmarks.__main__", "benchmarks.agents.executors"),
):
    importlib.import_module(module)
for env in (gym.make("CNNPrune-v0", importance="l1"), gym.make("CNNPruneTabular-v0")):
    env.reset(seed=0)
    env.step(env.action_space.sample())
