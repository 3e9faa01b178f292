"""Agents whose process is killed in the middle of their search; workers import them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from pruning_agents.baselines import random_search

#: A folder, inherited by the workers, in which a death leaves a file.
DEATHS = "DYING_AGENTS_FOLDER"


def dies_once(env, evaluations, seed):
    """Random search; with seed 1, its process is killed half-way the first time."""
    graves = Path(os.environ[DEATHS])
    if seed == 1 and not any(graves.iterdir()):
        random_search(env, evaluations // 2, seed)
        (graves / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return random_search(env, evaluations, seed)


def always_dies(env, evaluations, seed):
    """Random search; with seed 1, its process is killed."""
    if seed == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return random_search(env, evaluations, seed)
