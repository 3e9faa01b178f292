"""The vector environment as Stable-Baselines3 sees it, beside its own vectoriser."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.sb3 import CNNPruneVecEnv

SHORT: dict[str, Any] = {"channels_per_step": 0.2}


def same(first, second):
    return data_equivalence(first, second, exact=True)


@pytest.fixture(scope="module")
def envs():
    return CNNPruneVecEnv(gym.make_vec("CNNPrune-v0", num_envs=2, **SHORT))


def test_everything_that_comes_back_is_what_stable_baselines_own_vectoriser_gives(envs):
    dummy = DummyVecEnv([lambda: CNNPruneEnv(**SHORT)] * 2)
    assert envs.observation_space == dummy.observation_space
    assert envs.action_space == dummy.action_space
    for both in (envs, dummy):
        both.seed(3)
    assert same(envs.reset(), dummy.reset()) and same(envs.reset_infos, dummy.reset_infos)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(10):
        actions = rng.uniform(-1, 1, (2, 6)).astype(np.float32)
        first, second = envs.step(actions), dummy.step(actions)
        for mine, other in zip(first[:3], second[:3], strict=True):
            assert np.asarray(mine).dtype == np.asarray(other).dtype and same(mine, other)
        assert all(map(same, first[3], second[3]))
        assert same(envs.reset_infos, dummy.reset_infos)
        assert [("terminal_observation" in info) for info in first[3]] == first[2].tolist()
        ended += int(first[2].sum())
    assert ended > 3
    for mine, other in zip(envs.get_attr("np_random"), dummy.get_attr("np_random"), strict=True):
        assert mine.random() == other.random()


def test_agents_reach_the_slots_attributes_and_methods(envs):
    envs.reset()
    vector = envs.envs
    assert envs.get_attr("dynamics") == [vector.dynamics] * 2
    assert envs.get_attr("evaluator", indices=1) == [vector.evaluator]
    assert envs.has_attr("transition") and not envs.has_attr("nothing")
    states = envs.env_method("state")
    assert states == list(vector.states())
    action = np.zeros(6, np.float32)
    (step,) = envs.env_method("transition", states[1], action, indices=[1])
    envs.env_method("restore", step.state, indices=1)
    assert vector.states() == (states[0], step.state)
    envs.set_attr("tag", 7, indices=0)
    assert vector.slots[0].tag == 7 and not hasattr(vector.slots[1], "tag")


def test_options_start_the_next_episode_of_each_slot_and_only_that(envs):
    envs.reset()
    envs.step(np.zeros((2, 6), np.float32))
    states = envs.env_method("state")
    envs.set_options([{"state": states[0]}, {}])
    envs.reset()
    assert [state.step for state in envs.env_method("state")] == [1, 0]
    envs.reset()
    assert [state.step for state in envs.env_method("state")] == [0, 0]


def test_a_bad_action_is_named_by_its_slot_and_no_slot_moves(envs):
    envs.reset()
    actions = np.zeros((2, 6), np.float32)
    actions[1, 2] = np.nan
    with pytest.raises(ValueError, match="slot 1: action is NaN"):
        envs.step(actions)
    assert [state.step for state in envs.env_method("state")] == [0, 0]


@pytest.mark.parametrize("wrapper", [VecMonitor, VecNormalize])
def test_ppo_trains_on_it_inside_stable_baselines_wrappers_without_a_warning(envs, wrapper):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent = PPO("MlpPolicy", wrapper(envs), n_steps=16, batch_size=16, n_epochs=2, seed=0)
        before = [p.detach().clone() for p in agent.policy.parameters()]
        agent.learn(64)
    assert agent.num_timesteps == 64
    assert any((a != b).any() for a, b in zip(before, agent.policy.parameters(), strict=True))
    if wrapper is VecMonitor:
        assert agent.ep_info_buffer and all(e["l"] >= 2 for e in agent.ep_info_buffer)


def test_pictures_of_all_slots_are_tiled():
    envs = CNNPruneVecEnv(gym.make_vec("CNNPrune-v0", num_envs=2, render_mode="rgb_array"))
    envs.reset()
    single = np.asarray(envs.envs.slots[0].render())
    picture = envs.render("rgb_array")
    assert picture is not None and picture.shape[0] == 2 * single.shape[0]


def test_closing_closes_the_vector_environment():
    envs = CNNPruneVecEnv(gym.make_vec("CNNPrune-v0", num_envs=1))
    envs.close()
    assert envs.envs.closed


def test_something_else_than_the_bare_vector_environment_is_refused():
    other = gym.make_vec("CartPole-v1", num_envs=1)
    with pytest.raises(ValueError, match=r"envs=.*make_vec"):
        CNNPruneVecEnv(other)
