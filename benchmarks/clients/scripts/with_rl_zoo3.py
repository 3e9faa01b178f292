"""RL Baselines3 Zoo: training by our settings, and a search for better ones."""

from __future__ import annotations

import json
import runpy
import sys
from unittest import mock

from benchmarks.clients.scripts.short import ENV_ID, QUICK

COMMAND = [
    *("train", "--algo", "ppo", "--env", ENV_ID, "-n", "128"),
    *("--gym-packages", "pruning_env", "--conf-file", "pruning_agents.stock.rl_zoo.ppo"),
    *("--eval-freq", "64", "--eval-episodes", "1", "-f", "logs", "--device", "cpu"),
]
if QUICK:
    COMMAND += ["--env-kwargs", *(f"{name}:{json.dumps(value)}" for name, value in QUICK.items())]

SEARCH = ["-optimize", "--n-trials", "2", "--n-jobs", "1", "--sampler", "random"]

for arguments in (COMMAND, [*COMMAND, *SEARCH]):
    with mock.patch.object(sys, "argv", arguments):
        runpy.run_module("rl_zoo3.train", run_name="__main__")
