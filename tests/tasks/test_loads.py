"""Loads of data sets: each counts once, but for those whose test split is locked away."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import gymnasium as gym

from pruning_env.evaluation.ledger import Meter
from pruning_env.tasks.data import load_digits8
from pruning_env.tasks.loads import open_loads
from pruning_env.tasks.registry import Task, get_task
from tests.helpers.small import small_model, small_splits

TASK = Task(
    name="small",
    summary="random images",
    build=small_model,
    load_data=lambda root: small_splits(),
    load_weights=lambda module, weights, root: None,
    input_shape=(1, 8, 8),
    val_seen=False,
)


def counted(action: Any) -> int:
    before = open_loads()
    action()
    return open_loads() - before


def test_every_way_to_the_test_split_that_is_open_counts_once() -> None:
    assert counted(load_digits8) == 1
    assert counted(lambda: get_task("digits-resnet8").load_data(None)) == 1
    assert counted(lambda: TASK.load_data(None)) == 1
    assert counted(lambda: dataclasses.replace(TASK, name="other").load_data(None)) == 1
    shipped = pickle.loads(pickle.dumps(get_task("digits-resnet8")))
    assert counted(lambda: shipped.load_data(None)) == 1


def test_what_an_environment_loads_does_not_count() -> None:
    assert counted(lambda: gym.make("CNNPrune-v0")) == 0
    assert counted(lambda: gym.make_vec("CNNPrune-v0", num_envs=2)) == 0
    assert counted(load_digits8) == 1  # and ends with the environment


def test_a_meter_has_the_loads_of_its_block() -> None:
    load_digits8()
    with Meter() as meter:
        load_digits8()
        gym.make("CNNPrune-v0")
        load_digits8()
    load_digits8()
    assert meter.test_loads == 2
