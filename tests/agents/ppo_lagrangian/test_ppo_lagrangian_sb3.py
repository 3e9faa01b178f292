"""PPOLagrangian as a Stable-Baselines3 algorithm: saving, callbacks, loggers, environments."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.buffers import RolloutBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import SubprocVecEnv

from pruning_agents import PPOLagrangian
from tests.helpers.cmdps import LayersEnv, QuadraticEnv
from tests.helpers.training import SMALL, layers, plain, quadratic, same, scripted, weights


def test_a_loaded_agent_predicts_the_same_and_continues_bit_by_bit(tmp_path):
    agent = PPOLagrangian("MlpPolicy", layers(), cost_limit=0.5, **SMALL).learn(160)
    agent.save(tmp_path / "agent")
    loaded = PPOLagrangian.load(tmp_path / "agent", env=layers(seed=9))
    observation = np.eye(12, dtype=np.float32)
    for each in (agent, loaded):
        each.predicted = each.predict(observation, deterministic=True)[0]  # type: ignore[attr-defined]
    assert np.array_equal(agent.predicted, loaded.predicted)  # type: ignore[attr-defined]
    assert loaded.multiplier == agent.multiplier and agent.multiplier.updates == 5
    assert loaded.history == agent.history
    assert loaded.status == agent.status and loaded.price == agent.price > 0
    # Loading starts new episodes, so the original has to start some too; the generators of torch
    # and NumPy are the user's to restore.
    agent.set_env(layers(seed=9))
    for each in (agent, loaded):
        set_random_seed(5)
        each.learn(96, reset_num_timesteps=False)
    assert same(weights(agent), weights(loaded))
    assert same(agent.cost_critic.state_dict(), loaded.cost_critic.state_dict())
    assert agent.multiplier == loaded.multiplier and agent.multiplier.updates == 8
    assert agent.history == loaded.history and len(agent.history) == 8


@pytest.mark.parametrize("part", ["multiplier", "cost_critic", "optimizer", "rng"])
def test_what_a_loaded_agent_does_depends_on_each_part_that_was_saved(part, tmp_path):
    # Or the test above would say nothing of that part.
    agent = PPOLagrangian("MlpPolicy", layers(), cost_limit=0.5, **SMALL).learn(160)
    agent.save(tmp_path / "agent")
    ends = []
    for spoilt in (False, True):
        loaded = PPOLagrangian.load(tmp_path / "agent", env=layers(seed=9))
        fresh = PPOLagrangian("MlpPolicy", layers(), cost_limit=0.5, **SMALL)
        if spoilt and part == "multiplier":
            loaded.multiplier = fresh.multiplier
        elif spoilt and part == "cost_critic":
            loaded.cost_critic.load_state_dict(fresh.cost_critic.state_dict())
        elif spoilt and part == "optimizer":
            state = fresh.cost_critic.optimizer.state_dict()
            loaded.cost_critic.optimizer.load_state_dict(state)
        elif spoilt:
            loaded._cost_rng = fresh._cost_rng
        set_random_seed(5)
        loaded.learn(64, reset_num_timesteps=False)
        ends.append((weights(loaded), loaded.cost_critic.state_dict()))
    assert not (same(ends[0][0], ends[1][0]) and same(ends[0][1], ends[1][1]))


def test_a_saved_agent_predicts_without_an_environment(tmp_path):
    agent = PPOLagrangian("MlpPolicy", quadratic(), **SMALL).learn(32)
    agent.save(tmp_path / "agent")
    loaded = PPOLagrangian.load(tmp_path / "agent")
    observation = np.full((3, 1), 0.7, np.float32)
    first, second = (a.predict(observation, deterministic=True)[0] for a in (agent, loaded))
    assert np.array_equal(first, second)


def test_a_limit_can_be_changed_when_loading(tmp_path):
    env = scripted(((2.0,),))
    plain(env, cost_limit=1.0).learn(8).save(tmp_path / "agent")
    loaded = PPOLagrangian.load(tmp_path / "agent", env=env, cost_limit=4.0)
    assert loaded.multiplier.value == 0.1
    loaded.learn(8, reset_num_timesteps=False)
    assert loaded.multiplier.value == pytest.approx(0.1 - 0.1 * 0.5)


def test_it_works_in_processes():
    env = make_vec_env(QuadraticEnv, 2, seed=0, vec_env_cls=SubprocVecEnv)
    try:
        there = PPOLagrangian("MlpPolicy", env, **SMALL).learn(64)
    finally:
        env.close()
    here = PPOLagrangian("MlpPolicy", quadratic(), **SMALL).learn(64)
    assert same(weights(there), weights(here))
    assert there.history == here.history


def test_it_works_with_dictionary_observations():
    class DictEnv(LayersEnv):
        def __init__(self):
            super().__init__()
            half = gym.spaces.Box(0.0, 1.0, (6,), np.float32)
            self.observation_space = gym.spaces.Dict({"a": half, "b": half})  # type: ignore[assignment]

        def _observation(self):
            flat = super()._observation()
            return {"a": flat[:6], "b": flat[6:]}

    env = make_vec_env(DictEnv, 2, seed=0)
    agent = PPOLagrangian("MultiInputPolicy", env, cost_limit=0.5, **SMALL).learn(64)
    assert agent.multiplier.updates == 2


def test_callbacks_of_every_form_see_every_step(tmp_path):
    calls: list[int] = []

    def function(local, globals_):
        calls.append(local["self"].num_timesteps)
        return True

    checkpoints = CheckpointCallback(8, str(tmp_path))
    evaluation = EvalCallback(quadratic(1), n_eval_episodes=1, eval_freq=8, verbose=0)
    for callback in (function, checkpoints, [checkpoints, evaluation], None):
        PPOLagrangian("MlpPolicy", quadratic(), **SMALL).learn(32, callback=callback)
    assert calls == list(range(2, 33, 2))
    assert len(list(tmp_path.iterdir())) == 2
    assert evaluation.last_mean_reward < 0


def test_a_callback_can_stop_training_and_no_cost_is_lost():
    def stop(local, globals_):
        return local["self"].num_timesteps < 4

    agent = plain(scripted(((1.0,) * 6,)))
    agent.learn(8, callback=stop)
    assert agent.num_timesteps == 4 and agent.history == []
    agent.learn(8, reset_num_timesteps=False)
    assert agent.history[0].cost == 6.0


def test_the_progress_bar_runs_through_and_the_policy_can_be_evaluated():
    agent = PPOLagrangian("MlpPolicy", quadratic(), **SMALL).learn(32, progress_bar=True)
    mean, _ = evaluate_policy(agent, quadratic(1), 5)
    assert isinstance(mean, float) and mean < 0


class Keep(KVWriter):
    def __init__(self):
        self.rows: list[dict[str, Any]] = []

    def write(self, key_values, key_excluded, step=0):
        self.rows.append(dict(key_values))

    def close(self):
        pass


def test_the_logger_gets_costs_beside_rewards():
    agent, keep = PPOLagrangian("MlpPolicy", quadratic(), cost_limit=0.5, **SMALL), Keep()
    agent.set_logger(Logger(None, [keep]))
    agent.learn(96)
    first, _, last = keep.rows
    assert first["rollout/ep_cost_mean"] == pytest.approx(agent.history[0].cost)
    assert first["rollout/ep_rew_mean"] == pytest.approx(agent.history[0].reward, abs=1e-4)
    record = agent.history[1]  # what is learned from a rollout is logged with the next
    assert last["train/multiplier"] == record.multiplier
    assert last["train/cost"] == record.cost
    assert last["train/price"] == record.price
    assert last["train/cost_loss"] > 0
    assert last["train/cost_explained_variance"] <= 1.0
    assert last["train/feasible"] == float(record.status == "feasible")
    assert last["train/infeasible"] == 0.0
    assert [r.timesteps for r in agent.history] == [32, 64, 96]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cost_limit", 0.0),
        ("cost_limit", -1.0),
        ("cost_limit", math.nan),
        ("cost_gamma", 1.5),
        ("cost_gae_lambda", -0.1),
        ("cost_tolerance", -0.1),
        ("rollout_buffer_class", RolloutBuffer),
        ("controller", "pid"),
        ("multiplier_init", -1.0),
        ("multiplier_lr", -1.0),
        ("max_multiplier", 0.0),
    ],
)
def test_a_bad_argument_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        PPOLagrangian("MlpPolicy", quadratic(), **{name: value})
