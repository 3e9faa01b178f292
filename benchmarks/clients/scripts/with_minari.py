"""Minari: random episodes as a data set, read again, and their environment recovered."""

from __future__ import annotations

import os

os.environ["MINARI_DATASETS_PATH"] = os.path.abspath("datasets")

import gymnasium as gym
import minari

from benchmarks.clients.scripts.short import ENV_ID, QUICK

NAME = f"cnnprune/{ENV_ID.lower()}-random-v0"
if NAME in minari.list_local_datasets():
    minari.delete_dataset(NAME)
recorder = minari.DataCollector(gym.make(ENV_ID, **QUICK), record_infos=True)
for seed in range(2):
    recorder.reset(seed=seed)
    over = False
    while not over:
        _, _, terminated, truncated, _ = recorder.step(recorder.action_space.sample())
        over = terminated or truncated
recorder.create_dataset(
    NAME,
    algorithm_name="random",
    description="random actions",
    author="somebody",
    author_email="somebody@example.org",
    code_permalink="https://example.org",
)
recorder.close()
dataset = minari.load_dataset(NAME)
assert dataset.total_episodes == 2
again = dataset.recover_environment()
observation, _ = again.reset()
first = next(iter(dataset.iterate_episodes()))
assert (first.observations[0] == observation).all()
