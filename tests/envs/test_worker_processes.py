"""Environments in worker processes, made by a process that has not computed a gradient yet.

Each command runs in such a process of its own: one that has computed any cannot be forked into
processes that do (PyTorch's rule), and this one may have.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from unittest import mock

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import SubprocVecEnv

from pruning_env.evaluation import gradients
from tests.helpers.forks import Fork

Client = Callable[[list[str]], int]

IDS = ("CNNPrune-v0", "CNNPruneTabular-v0")


def expected(name: str) -> list[np.ndarray]:
    """What an environment of this process shows, after reset and after a step."""
    env = gym.make(name)
    action = np.zeros(env.action_space.shape or (), np.float32)
    return [env.reset(seed=0)[0], env.step(action)[0]]


def by_gymnasium(arguments: list[str]) -> int:
    name, context = arguments
    envs = gym.make_vec(
        name, num_envs=2, vectorization_mode="async", vector_kwargs={"context": context}
    )
    actions = np.zeros(envs.action_space.shape or (), np.float32)
    seen = [envs.reset(seed=0)[0], envs.step(actions)[0]]
    envs.close()
    return 0 if np.array_equal(np.array(seen)[:, 1], expected(name)) else 1


def by_stable_baselines(arguments: list[str]) -> int:
    name, context = arguments
    alone = gym.make(name)  # as for evaluation, beside the workers
    make = functools.partial(gym.make, f"pruning_env:{name}")  # a spawned one imports it
    workers = SubprocVecEnv([make] * 2, start_method=context)
    actions = np.zeros((2, *(alone.action_space.shape or ())), np.float32)
    seen = [workers.reset(), workers.step(actions)[0]]
    workers.close()
    return 0 if np.array_equal(np.array(seen)[:, 1], expected(name)) else 1


def renewing(arguments: list[str]) -> int:
    """Whether a fork replaces its threads before its first gradient, and only then."""
    with mock.patch("torch.set_num_threads") as replaced:
        for _ in range(2):
            with gradients.computing_gradients():
                pass
    return 0 if replaced.call_count == 1 else 1


def too_late(_: list[str]) -> int:
    gym.make("CNNPrune-v0").reset(seed=0)
    envs = gym.make_vec(
        "CNNPrune-v0", num_envs=1, vectorization_mode="async", vector_kwargs={"context": "fork"}
    )
    try:
        envs.reset(seed=0)
    except RuntimeError as error:
        return 0 if 'context="spawn"' in str(error) else 1
    finally:
        envs.close(terminate=True)
    return 2


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("client", [by_gymnasium, by_stable_baselines])
def test_forked_workers_step_as_one_process_does(client: Client, name: str) -> None:
    assert Fork(client, [name, "fork"]).end()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("client", [by_gymnasium, by_stable_baselines])
def test_spawned_workers_step_as_one_process_does(client: Client, name: str) -> None:
    assert Fork(client, [name, "spawn"]).end()[0] == 0


def test_a_forked_process_replaces_its_threads_before_its_first_gradient() -> None:
    assert Fork(renewing, []).end()[0] == 0


def test_workers_forked_after_a_gradient_say_that_they_must_be_spawned() -> None:
    assert Fork(too_late, []).end()[0] == 0
