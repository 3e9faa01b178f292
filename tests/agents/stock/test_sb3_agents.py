"""Every agent that learns is an ordinary Stable-Baselines3 algorithm on an ordinary environment."""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from pruning_agents.search.training import begin
from pruning_agents.stock.sb3_agents import REWARD_SCALE, stock_agents
from pruning_agents.stock.scaling import ScaledReward
from pruning_agents.stock.settings import read_settings, settings_file, task_of
from tests.helpers.learners import LEARNERS, env_for, learner_of, same_parameters

STOCK = {agent.name: agent for agent in stock_agents()}


@pytest.fixture(scope="module")
def trained():
    """By the learner's name, an agent after a few transitions, shared: only read it."""
    return functools.cache(lambda name: begin(learner_of(name), env_for(name), 0).agent.learn(80))


@pytest.mark.parametrize("name", LEARNERS)
def test_evaluate_policy_and_monitor_see_whole_episodes(name, trained):
    agent, env = trained(name), Monitor(env_for(name))
    rewards, lengths = evaluate_policy(agent, env, 2, return_episode_rewards=True)
    assert isinstance(rewards, list) and isinstance(lengths, list)
    assert rewards == pytest.approx(env.get_episode_rewards())
    assert lengths == env.get_episode_lengths()
    assert rewards[0] == rewards[1] and all(length >= 1 for length in lengths)
    # Candidates are no episodes, and so few transitions hardly a step.
    assert name not in STOCK or len(agent.ep_info_buffer) > 0


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loaded_agent_has_the_same_parameters_and_predicts_the_same(name, trained, tmp_path):
    agent = trained(name)
    agent.save(tmp_path / "agent")
    loaded = learner_of(name).algorithm.load(tmp_path / "agent", env=env_for(name))
    assert same_parameters(agent, loaded)
    agent.observation_space.seed(1)
    for _ in range(5):
        observation = agent.observation_space.sample()
        action, _ = agent.predict(observation, deterministic=True)
        again, _ = loaded.predict(observation, deterministic=True)
        assert np.array_equal(action, again) and agent.action_space.contains(action)
    loaded.learn(20, reset_num_timesteps=False)
    assert loaded.num_timesteps >= agent.num_timesteps + 20


@pytest.mark.parametrize("name", LEARNERS)
def test_eval_callback_evaluates_and_keeps_the_best_agent(name, tmp_path):
    agent = begin(learner_of(name), env_for(name), 0).agent
    env = env_for(name)
    callback = EvalCallback(
        Monitor(env),
        n_eval_episodes=1,
        eval_freq=50,
        best_model_save_path=str(tmp_path),
        verbose=0,
    )
    agent.learn(110, callback=callback)
    assert np.isfinite(callback.best_mean_reward) and len(callback.evaluations_results) == 0
    best = learner_of(name).algorithm.load(tmp_path / "best_model.zip", env=env)
    assert evaluate_policy(best, env, 1, warn=False)[0] == pytest.approx(callback.best_mean_reward)


@pytest.mark.parametrize("name", LEARNERS)
def test_it_learns_from_normalised_observations(name):
    agent = begin(learner_of(name), env_for(name), 0).agent
    normalised = VecNormalize(DummyVecEnv([lambda: Monitor(env_for(name))]), gamma=1.0)
    agent.set_env(normalised)
    agent.learn(80)
    assert normalised.obs_rms.count > 1  # type: ignore[attr-defined]
    assert agent.get_vec_normalize_env() is normalised
    assert np.isfinite(evaluate_policy(agent, normalised, 1)[0])


@pytest.mark.parametrize("name", ["ppo", pytest.param("rl-pruner", marks=pytest.mark.slow)])
def test_it_learns_from_an_environment_in_another_process(name):
    agent = begin(learner_of(name), env_for(name), 0).agent
    processes = SubprocVecEnv([lambda: Monitor(env_for(name))], start_method="forkserver")
    try:
        agent.set_env(processes)
        agent.learn(70)
        assert np.isfinite(evaluate_policy(agent, processes, 1)[0])
        assert processes.get_attr("evaluations")[0] > 0
    finally:
        processes.close()


@pytest.mark.parametrize("name", sorted({"ppo", "a2c", "ppo-lagrangian"} & set(STOCK)))
def test_several_slots_train_one_agent(name):
    # Rollouts of several environments: what settings files say does not depend on their number.
    settings = read_settings(settings_file(name), "any", STOCK[name].allowed_settings())
    settings.pop(REWARD_SCALE, None)  # `wrap` has it
    envs = DummyVecEnv([lambda: STOCK[name].wrap(env_for(name)) for _ in range(3)])
    agent = STOCK[name].algorithm("MlpPolicy", envs, **settings).learn(100)
    assert agent.num_timesteps >= 100
    assert any(found is not None for found in envs.env_method("incumbent"))


@pytest.mark.parametrize("name", sorted(STOCK))
def test_dictionaries_can_be_observed(name):
    settings: dict[str, Any] = {"observation": "dict", "round_to": 5, "recovery": "none"}
    if name == "ppo-lagrangian":
        env = env_for(name, **settings)
    else:
        env = gym.make("CNNPrune-v0", constraint="project", max_steps=1, **settings)
    agent = STOCK[name].make(env, 0)
    agent.learn(10 if name != "ppo-lagrangian" else 1)


@pytest.mark.parametrize("name", ["sac", "td3", "ddpg"])
def test_agents_of_continuous_actions_say_so(name):
    env = gym.make("CNNPrune-v0", action="counts", max_steps=1)
    with pytest.raises(ValueError, match=rf"{name} needs continuous actions, not MultiDiscrete"):
        begin(learner_of(name), env, 0)


@pytest.mark.parametrize("name", ["ppo", "a2c"])
def test_agents_of_any_actions_take_whole_numbers(name):
    env = gym.make("CNNPrune-v0", action="counts", max_steps=1, constraint="project")
    assert begin(learner_of(name), env, 0).agent.learn(8).num_timesteps >= 8


def test_an_agent_that_learns_from_costs_says_how_to_make_its_environment():
    with pytest.raises(ValueError, match="--constraint cost --max-steps 2 --action ratio"):
        begin(learner_of("ppo-lagrangian"), gym.make("CNNPruneTabular-v0"), 0)


@pytest.mark.parametrize("name", sorted(STOCK))
def test_settings_come_with_the_package_and_do_not_discount(name):
    env = env_for(name)
    settings = read_settings(settings_file(name), task_of(env), STOCK[name].allowed_settings())
    assert settings["gamma"] == 1.0
    agent: Any = STOCK[name].make(env, 0)
    assert agent.gamma == 1.0 and agent.policy_kwargs["net_arch"] == [64, 64]


def test_scaled_rewards_are_the_algorithms_alone():
    env = STOCK["ppo"].wrap(gym.make("CNNPruneTabular-v0"))
    env.reset(seed=0)
    terminated, true, seen = False, 0.0, 0.0
    while not terminated:
        _, reward, terminated, _, info = env.step(np.zeros(6, np.float32))
        true += sum(info["reward_terms"].values())
        seen += float(reward)
    assert seen == pytest.approx(5.0 * true) and true < -0.05
    assert info["episode"]["r"] == pytest.approx(true, abs=1e-5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_no_positive_number_is_refused(scale):
    with pytest.raises(ValueError, match="scale="):
        ScaledReward(gym.make("CNNPruneTabular-v0"), scale)


def test_a_task_replaces_single_settings(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("defaults: {a: 1, b: 2}\ntasks: {wide: {b: 3}, odd:}\n")
    assert read_settings(file, "wide", {"a", "b"}) == {"a": 1, "b": 3}
    assert read_settings(file, "odd", {"a", "b"}) == {"a": 1, "b": 2}
    assert read_settings(file, "another", {"a", "b"}) == {"a": 1, "b": 2}


def test_episodes_of_one_action_have_settings_of_their_own(tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text("defaults: {a: 1, b: 2}\none_step: {a: 4, b: 5}\ntasks: {wide: {b: 3}}\n")
    assert read_settings(file, "wide", {"a", "b"}, one_step=True) == {"a": 4, "b": 3}
    assert read_settings(file, "other", {"a", "b"}) == {"a": 1, "b": 2}
    for max_steps, expected in ((1, 16), (2, 128)):
        env = gym.make("CNNPruneTabular-v0", constraint="project", max_steps=max_steps)
        agent: Any = STOCK["ppo"].make(env, 0)
        assert agent.n_steps == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("defaults: {gama: 1.0}", r"agent.yaml: defaults has unknown keys 'gama'; allowed: gamma"),
        ("tasks: {wide: {lr: 1}}", r"tasks: wide has unknown keys 'lr'"),
        ("default: {}", r"the file has unknown keys 'default'; allowed: defaults, one_step, tasks"),
        ("one_step: {gama: 1.0}", r"one_step has unknown keys 'gama'"),
        ("defaults: 3", r"defaults must be a mapping of names to values, not 3"),
        ("tasks: {wide: [1]}", r"tasks: wide must be a mapping"),
        ("- 1", r"the file must be a mapping"),
        ("{", r"agent.yaml is not YAML"),
    ],
)
def test_a_settings_file_with_a_mistake_is_refused_by_name(text, message, tmp_path):
    file = tmp_path / "agent.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_settings(file, "narrow", {"gamma"})


def test_the_task_of_an_environment_is_found_under_its_wrappers():
    assert task_of(gym.make("CNNPrune-v0")) == "digits-resnet8"
    assert task_of(Monitor(gym.make("CNNPruneTabular-v0"))) == "CNNPruneTabular-v0"
