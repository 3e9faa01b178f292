"""Every variant of `CNNPrune-v0` keeps the default's promises: checkers, forks, pickles, slots."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from pruning_agents.search.training import StopAtEvaluations
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv
from pruning_env.envs.sb3 import CNNPruneVecEnv
from pruning_env.process import rewards
from pruning_env.process.rewards import Outcome, register_reward

VARIANTS: dict[str, dict[str, Any]] = {
    "bounded": {"max_steps": 2, "channels_per_step": 0.2},
    "project": {"constraint": "project", "channels_per_step": 0.2},
    "bandit": {"constraint": "project", "max_steps": 1},
    "wall": {"constraint": "wall", "max_steps": 3, "budget": {"params": 0.4, "macs": 0.3}},
    "cost": {"constraint": "cost", "max_steps": 3, "channels_per_step": 0.2},
    "ratio": {"action": "ratio", "max_steps": 3},
    "ratio-project": {"action": "ratio", "constraint": "project", "max_steps": 1},
    "ratio-wall": {"action": "ratio", "constraint": "wall", "max_steps": 3, "round_to": 4},
    "counts": {"action": "counts", "max_steps": 3, "constraint": "wall"},
    "counts-project": {"action": "counts", "max_steps": 1, "constraint": "project", "round_to": 8},
    "ratio-cost": {"action": "ratio", "constraint": "cost", "max_steps": 2},
    "layerwise": {"action": "layerwise", "max_steps": 6},
    "layerwise-wall": {"action": "layerwise", "max_steps": 6, "constraint": "wall", "round_to": 4},
    "layerwise-cost": {"action": "layerwise", "max_steps": 6, "constraint": "cost"},
    "final": {"reward": "final", "channels_per_step": 0.3},
    "final-wall": {"reward": "final", "constraint": "wall", "max_steps": 3},
    "final-finetune": {
        "reward": "final",
        "recovery": "finetune",
        "finetune_steps": 1,
        "constraint": "project",
        "max_steps": 2,
    },
    "dict": {"observation": "dict", "channels_per_step": 0.3},
    "dict-cost": {"observation": "dict", "constraint": "cost", "max_steps": 2},
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def same(first, second):
    return data_equivalence(first, second, exact=True)


@pytest.fixture(scope="module")
def vectorised():
    """Two slots of every variant; the only environments that are built, others are forks."""
    return {
        name: CNNPruneVectorEnv(2, "SameStep", **arguments) for name, arguments in VARIANTS.items()
    }


@pytest.fixture
def built(vectorised):
    """One environment per variant, in no episode."""
    return {name: envs.slots[0].fork() for name, envs in vectorised.items()}


def draw(env, rng):
    """A random action."""
    if isinstance(env.action_space, gym.spaces.MultiDiscrete):
        return rng.integers(env.action_space.nvec)
    return rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)


def episode(env, rng):
    """Everything that comes back over one episode of random actions."""
    rows: list[Any] = [env.reset(seed=0)]
    while len(rows) == 1 or not rows[-1][2]:
        rows.append(env.step(draw(env, rng)))
    return rows


@variants
def test_both_checkers_are_silent(built, variant):
    env = built[variant]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Stable-Baselines3 expects images or vectors in a dict; a table of groups is neither. Its
        # own extractor flattens it.
        warnings.filterwarnings("ignore", "Your observation groups has an unconventional shape")
        sb3_check_env(env, warn=True)
        check_env(env, skip_render_check=True)


@variants
def test_an_episode_ends_and_repeats_itself(built, variant):
    env = built[variant]
    first, second = (episode(env, np.random.default_rng(1)) for _ in range(2))
    assert same(first, second)
    limit = VARIANTS[variant].get("max_steps", 20)
    assert 1 < len(first) <= limit + 1
    keys = list(first[0][1])
    for row in first:
        assert list(row[-1]) == keys and env.observation_space.contains(row[0])
        numbers = [x for x in row[-1].values() if not isinstance(x, dict)]
        assert np.isfinite([*numbers, *row[-1]["usage"].values()]).all()


@variants
def test_forks_and_pickles_and_restored_states_go_on_alike_in_mid_episode(built, variant):
    env = built[variant]
    rng = np.random.default_rng(2)
    env.reset(seed=0)
    while True:
        action = draw(env, rng)
        fork, back = env.fork(), env.fork()
        back.reset()
        back.restore(pickle.loads(pickle.dumps(env.state())))
        outcome = env.step(action)
        assert same(outcome, fork.step(action)) and same(outcome, back.step(action))
        assert fork.state() == back.state() == env.state()
        if outcome[2]:
            break
    env.reset(seed=0)
    if not env.step(action)[2]:
        twin = pickle.loads(pickle.dumps(env))
        assert twin.state() == env.state()
        assert same(twin.step(action), env.step(action))


@variants
def test_slots_equal_single_environments_under_gymnasiums_own_vectoriser(vectorised, variant):
    ours = vectorised[variant]
    makers = [ours.slots[0].fork, ours.slots[0].fork]
    theirs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)
    assert ours.observation_space == theirs.observation_space
    assert same(ours.reset(seed=3), theirs.reset(seed=3))
    ours.action_space.seed(3)
    ended = 0
    for _ in range(8):
        actions = ours.action_space.sample()
        first, second = ours.step(actions), theirs.step(actions)
        ended += int(first[2].sum())
        finals = [step[4].pop("final_obs", None) for step in (first, second)]
        assert (finals[0] is None) == (finals[1] is None)
        for mine, other in zip(*[f if f is not None else [] for f in finals], strict=True):
            assert (mine is None and other is None) or same(mine, other)
        assert same(first, second)
    assert ended >= 2


@variants
def test_stable_baselines_face_hands_out_what_the_slots_give(built, vectorised, variant):
    env = built[variant]
    face = CNNPruneVecEnv(vectorised[variant])
    env.reset()
    face.reset()
    action = draw(env, np.random.default_rng(3))
    for _ in range(3):
        observation, reward, terminated, _, _ = env.step(action)
        observations, mine, dones, infos = face.step(np.stack([action, action]))
        assert dones.tolist() == [terminated] * 2 and (mine == np.float32(reward)).all()
        if terminated:
            assert same(infos[1]["terminal_observation"], observation)
            observation, _ = env.reset()
        rows = observations["groups"] if isinstance(observations, dict) else observations
        mine_alone = observation["groups"] if isinstance(observation, dict) else observation
        assert np.array_equal(rows[0], mine_alone) and np.array_equal(rows[1], mine_alone)


def test_a_dictionary_holds_the_same_numbers_as_the_flat_vector():
    flat = CNNPruneEnv(max_steps=4)
    table = CNNPruneEnv(observation="dict", max_steps=4)
    vector, parts = flat.reset()[0], table.reset()[0]
    groups = len(flat.graph.groups)
    assert parts["groups"].shape == (groups, 10)
    assert np.array_equal(vector[: groups * 10].reshape(groups, 10), parts["groups"])
    assert np.array_equal(vector[groups * 10 :], parts["globals"])
    assert flat.observation_names == table.observation_names


def test_the_steps_left_are_observed_only_where_they_are_bounded(built):
    env = built["cost"]
    assert env.observation_names[-1] == "steps_left"
    left = [float(row[0][-1]) for row in episode(env, np.random.default_rng(0))]
    assert left == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert "steps_left" not in built["project"].observation_names


# Lazy rewards


@pytest.fixture
def lazy():
    return CNNPruneEnv(reward="final", channels_per_step=0.2)


def test_a_lazy_reward_evaluates_once_per_episode_and_nothing_before(lazy):
    rng = np.random.default_rng(0)
    for done in range(4):
        lazy.reset()
        terminated = False
        while not terminated:
            assert lazy.evaluations == done
            action = rng.uniform(-1, 1, lazy.action_space.shape)
            _, reward, terminated, _, info = lazy.step(action)
            assert terminated or reward == 0.0 == info["reward_terms"]["final"]
        dense = lazy.evaluator.dense.accuracy
        assert reward == info["accuracy"] - dense != 0
        assert lazy.evaluations == done + 1 and lazy.evaluator.cache_hits == 0


def test_slots_with_a_lazy_reward_spend_one_evaluation_per_episode():
    envs = CNNPruneVectorEnv(3, "SameStep", reward="final", channels_per_step=0.2)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    ended = sum(int(envs.step(envs.action_space.sample())[2].sum()) for _ in range(12))
    assert ended > 5 and envs.evaluations == ended


def test_states_on_the_way_carry_the_metrics_known_last_and_are_marked_as_not_judged(lazy):
    observation, info = lazy.reset()
    after, _, terminated, _, later = lazy.step(np.zeros(lazy.action_space.shape))
    assert not terminated and lazy.state().metrics is None
    assert lazy.state().latest == lazy.evaluator.dense
    for key in ("accuracy", "loss"):
        assert later[key] == info[key]
    index = lazy.observation_names.index("accuracy")
    assert after[index] == observation[index] and later["params"] < 1


def test_an_episode_that_starts_at_a_judged_state_knows_the_metrics_of_that_one(lazy):
    lazy.reset()
    lazy.step(np.zeros(6))
    start = lazy.dynamics.judge(lazy.state())
    lazy.reset(options={"state": start})
    _, _, terminated, _, info = lazy.step(np.zeros(6))
    assert not terminated and lazy.state().latest == start.metrics != lazy.evaluator.dense
    assert info["accuracy"] == start.metrics.accuracy and lazy.evaluations == 1


def test_the_end_of_a_lazy_episode_is_the_end_of_an_eager_one(lazy):
    eager = CNNPruneEnv(channels_per_step=0.2)
    lasts = [episode(env, np.random.default_rng(4))[-1] for env in (lazy, eager)]
    assert lazy.state() == eager.state()
    assert same(lasts[0][0], lasts[1][0])
    infos = [{k: v for k, v in last[-1].items() if k != "reward_terms"} for last in lasts]
    assert infos[0] == infos[1]
    assert episode(lazy, np.random.default_rng(4))[-1][1] == pytest.approx(
        sum(row[1] for row in episode(eager, np.random.default_rng(4))[1:])
    )


def test_a_lazy_state_can_be_reported_before_its_end_and_costs_an_evaluation_then(lazy):
    lazy.reset()
    lazy.step(np.zeros(lazy.action_space.shape))
    report = lazy.report()
    assert lazy.evaluations == 1
    assert report.val_accuracy == lazy.evaluator.evaluate(lazy.state().keep).accuracy
    assert lazy.state().metrics is None


@pytest.mark.parametrize("render_mode", ["ansi", "rgb_array"])
def test_a_lazy_episode_can_be_drawn_at_any_time(lazy, render_mode):
    lazy.render_mode = render_mode
    lazy.reset()
    lazy.step(np.zeros(lazy.action_space.shape))
    assert lazy.render() is not None and lazy.evaluations == 0


def test_a_registered_reward_declares_that_it_is_lazy(monkeypatch):
    monkeypatch.setattr(rewards, "_REWARDS", dict(rewards._REWARDS))
    seen: list[Outcome] = []

    @register_reward("late", lazy=True)
    def late(outcome):
        seen.append(outcome)
        return {"late": outcome.after.accuracy if outcome.terminated else 0.0}

    env = CNNPruneEnv(reward="late", channels_per_step=0.3)
    rows = episode(env, np.random.default_rng(0))
    assert env.evaluations == 1 and rows[-1][1] == rows[-1][-1]["accuracy"]
    assert all(outcome.before == outcome.after == env.evaluator.dense for outcome in seen[:-1])
    assert seen[-1].dense == env.evaluator.dense != seen[-1].after


# Counting


def test_evaluations_are_counted_for_forks_wrappers_slots_and_stable_baselines():
    env = gym.make("CNNPrune-v0", reward="final", constraint="project", max_steps=1)
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape, np.float32))
    assert env.get_wrapper_attr("evaluations") == env.unwrapped.fork().evaluations == 1  # type: ignore[attr-defined]
    envs = CNNPruneVectorEnv(2, reward="final", constraint="project", max_steps=1)
    face = CNNPruneVecEnv(envs)
    face.reset()
    face.step(np.stack([np.zeros(6, np.float32), np.ones(6, np.float32) * np.eye(6)[0]]))
    assert face.get_attr("evaluations") == [2, 2] and envs.evaluations == 2


def test_training_stops_at_the_evaluations_without_moving_the_evaluator():
    env = CNNPruneEnv(reward="final", constraint="project", max_steps=1)
    model = PPO("MlpPolicy", env, n_steps=4, batch_size=4, n_epochs=1, seed=0, device="cpu")
    stop = StopAtEvaluations(6)
    model.learn(100, callback=stop)
    assert stop.spent == env.evaluations == 6


# Measured latency


def test_a_latency_budget_is_a_positive_ratio_that_starts_at_one():
    env = CNNPruneEnv(
        budget={"latency": 0.9, "params": 0.2},
        latency_arguments={"batch": 32},
        channels_per_step=0.4,
    )
    env.reset()
    assert env.state().usage == (1.0, 1.0)
    info: dict[str, Any] = {}
    terminated = False
    while not terminated:
        _, _, terminated, _, info = env.step(np.zeros(6))
        assert env.state().usage[0] > 0
    assert info["is_success"] == env.dynamics.feasible(env.state())
    assert env.dynamics.check(env.state()) is env.state()  # a measurement is trusted


def test_a_latency_that_no_network_meets_is_refused_when_the_environment_is_made():
    with pytest.raises(ValueError, match=r"budget\['latency'\]=0.01 cannot be met"):
        CNNPruneEnv(budget={"latency": 0.01}, action="ratio", max_steps=1)


def test_info_says_what_is_used_of_each_budget():
    env = CNNPruneEnv(budget={"macs": 0.5, "filters": 0.9})
    _, info = env.reset()
    assert info["usage"] == {"macs": 1.0, "filters": 1.0}
    _, _, _, _, info = env.step(np.zeros(6))
    assert info["usage"] == dict(zip(("macs", "filters"), env.state().usage, strict=True))
    assert info["usage"]["macs"] == info["macs"] < 1
