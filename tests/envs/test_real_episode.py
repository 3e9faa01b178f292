"""The whole path on real weights and real images: CIFAR-10 ResNet-56, one episode, one report."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pruning_env  # noqa: F401  (registers the environments)
from pruning_env.evaluation.evaluator import measure
from pruning_env.tasks.registry import get_task


@pytest.mark.slow
@pytest.mark.data
def test_resnet56_is_pruned_to_half_its_parameters_and_reported_on_the_test_images() -> None:
    env = gym.make(
        "CNNPrune-v0", task="cifar10-resnet56", budget={"params": 0.5}, channels_per_step=0.1
    )
    u: Any = env.unwrapped
    _, info = env.reset(seed=0)
    done = False
    rewards: list[float] = []
    while not done:
        before = u.state().counts
        _, reward, done, _, info = env.step(np.zeros(env.action_space.shape, np.float32))
        assert info["removed"] == info["requested"] == (before - u.state().counts).sum()
        rewards.append(float(reward))
    assert info["is_success"] and info["params"] <= 0.5
    change = info["accuracy"] - u.evaluator.dense.accuracy
    assert sum(rewards) == pytest.approx(change, abs=1e-9)

    report = u.report()
    assert report.test_openings == 1
    assert report.params == info["params"] and report.val_accuracy == info["accuracy"]
    small = u.pruned_model()
    assert sum(p.numel() for p in small.parameters()) == round(info["params"] * 853_018)
    task = get_task("cifar10-resnet56")
    splits = task.load_data(None)
    assert len(splits.test.labels) == 10_000
    images = splits.normalised(splits.test, "cpu")
    assert measure(small, images, splits.test.labels, 128).accuracy == report.accuracy
    assert report.accuracy > 0.2  # chance is 0.1: batch-norm statistics fit the pruned network
