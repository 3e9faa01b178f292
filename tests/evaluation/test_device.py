"""What depends on the device, on the device that is here: CUDA where there is one, or the CPU.

`PRUNING_ENV_TEST_DEVICE` names another. The CPU in single or double precision is what it must
agree with.
"""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.execution import STRATEGIES
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task
from tests.helpers.networks import check_pruning

DEVICE = torch.device(
    os.environ.get("PRUNING_ENV_TEST_DEVICE", "cuda" if torch.cuda.is_available() else "cpu")
)
ONE_IMAGE = 1 / 360  # of search-val: a tie within rounding may fall either way


@pytest.fixture(scope="module")
def digits() -> Any:
    task = get_task("digits-resnet8")
    model = task.model()
    return model, ChannelGraph.trace(model, task.example_input()), task.load_data(None)


def masks(graph: ChannelGraph, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [graph.random_keep(share, rng) for share in np.linspace(0.2, 0.9, number)]


def test_a_pruned_network_is_the_masked_one(digits: Any) -> None:
    task = get_task("digits-resnet8")
    model = task.model().double().to(DEVICE)
    images = digits[2].normalised(digits[2].search_val, device=DEVICE)[:32].double()
    for keep in masks(digits[1], 4):
        assert check_pruning(digits[1], model, (images,), keep).effect > 0


@pytest.mark.parametrize("recovery", ["none", "bn"])
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "compiled"])
def test_every_strategy_judges_as_slicing_on_the_cpu(
    strategy: str, recovery: str, digits: Any
) -> None:
    agrees_with_the_cpu(strategy, recovery, digits)


@pytest.mark.slow
@pytest.mark.parametrize("recovery", ["none", "bn"])
def test_a_compiled_network_judges_as_slicing_on_the_cpu(recovery: str, digits: Any) -> None:
    agrees_with_the_cpu("compiled", recovery, digits)


def agrees_with_the_cpu(strategy: str, recovery: str, digits: Any) -> None:
    here = Evaluator(*digits, strategy=strategy, recovery=recovery, device=DEVICE)
    expected = Evaluator(*digits, strategy="sliced", recovery=recovery)
    keeps = masks(digits[1], 9)  # a full chunk of candidates, and one that is left over
    pairs = zip(here.evaluate_many(keeps), expected.evaluate_many(keeps), strict=True)
    for ours, theirs in pairs:
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3)
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=ONE_IMAGE + 1e-9)


def test_bfloat16_moves_accuracies_by_little(digits: Any) -> None:
    rounded = Evaluator(*digits, precision="bfloat16", device=DEVICE)
    exact = Evaluator(*digits)
    keeps = masks(digits[1], 4)
    for a, b in zip(rounded.evaluate_many(keeps), exact.evaluate_many(keeps), strict=True):
        assert a.loss != b.loss
        assert a.accuracy == pytest.approx(b.accuracy, abs=0.03)


@pytest.mark.parametrize("importance", ["l1", "taylor"])
def test_importance_is_that_of_the_cpu(importance: str, digits: Any) -> None:
    here, there = (Evaluator(*digits, device=device) for device in (DEVICE, "cpu"))
    np.testing.assert_allclose(here.scores(importance), there.scores(importance), rtol=2e-3)


def episode(**arguments: Any) -> list[tuple[list[int], float]]:
    """Counts and accuracy after every step of an episode of fixed actions."""
    env = gym.make("CNNPrune-v0", importance="l1", channels_per_step=0.2, **arguments).unwrapped
    assert isinstance(env, CNNPruneEnv)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    told, done = [], False
    while not done:
        action = rng.uniform(-1, 1, env.graph.sizes.shape).astype(np.float32)
        _, _, terminated, truncated, info = env.step(action)
        told.append((env.state().counts.tolist(), info["accuracy"]))
        done = terminated or truncated
    return told


def test_an_episode_is_that_of_the_cpu() -> None:
    here, there = episode(device=str(DEVICE)), episode()
    assert [counts for counts, _ in here] == [counts for counts, _ in there]
    for (_, ours), (_, theirs) in zip(here, there, strict=True):
        assert ours == pytest.approx(theirs, abs=ONE_IMAGE + 1e-9)


def test_slots_of_a_vectorized_environment_are_single_environments() -> None:
    arguments: dict[str, Any] = {"device": str(DEVICE), "channels_per_step": 0.2}
    envs = gym.make_vec("CNNPrune-v0", num_envs=9, **arguments)
    single = gym.make("CNNPrune-v0", **arguments)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
    _, rewards, *_, infos = envs.step(actions)
    for slot, action in enumerate(actions):
        single.reset()
        _, reward, *_, info = single.step(action)
        assert infos["accuracy"][slot] == pytest.approx(info["accuracy"], abs=ONE_IMAGE + 1e-9)
        assert rewards[slot] == pytest.approx(reward, abs=ONE_IMAGE + 1e-6)


def test_fine_tuning_on_the_device_recovers_and_leaves_a_fork_alone(digits: Any) -> None:
    env = gym.make(
        "CNNPrune-v0",
        recovery="finetune",
        finetune_steps=30,
        finetune_lr=0.02,
        channels_per_step=0.4,
        device=str(DEVICE),
    ).unwrapped
    assert isinstance(env, CNNPruneEnv)
    env.reset(seed=0)
    fork = env.fork()
    before = fork.state()
    *_, info = env.step(np.full(env.graph.sizes.shape, 0.0, np.float32))
    as_cut = Evaluator(*digits, recovery="none", device=DEVICE).evaluate(env.state().keep)
    assert info["accuracy"] > as_cut.accuracy + 0.05
    assert fork.state() == before != env.state()
    assert {tensor.device.type for tensor in env.pruned_model().parameters()} == {DEVICE.type}


def test_many_candidates_leave_no_memory_behind(digits: Any) -> None:
    if DEVICE.type != "cuda":
        pytest.skip("what a CPU keeps is in test_memory.py")
    evaluator = Evaluator(*digits, device=DEVICE, cache_size=0)
    keeps = masks(digits[1], 64)
    evaluator.evaluate_many(keeps)
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        evaluator.evaluate_many(keeps)
    assert torch.cuda.memory_allocated() <= before
