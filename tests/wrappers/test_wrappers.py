"""The wrappers on real environments: what they change, and that they change nothing else."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import SyncVectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from pruning_agents.stock.groupwise import (
    GroupEncoder,
    GroupwiseActorCriticPolicy,
    GroupwiseExtractor,
)
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.tasks import registry as tasks
from pruning_env.tasks.registry import Task
from pruning_env.wrappers import CostReturn, EvaluationCounter, MultiObjectiveReward, PadGroups
from tests.helpers.small import small_model, small_splits

COSTLY = {"constraint": "cost", "max_steps": 2, "budget": {"params": 0.2}, "reward": "final"}


def tabular(**arguments: Any) -> Any:
    return gym.make("CNNPruneTabular-v0", **arguments)


def walk(env, steps=30, seed=0):
    """What an environment says to actions of a fixed stream: one per step, after resets too."""
    rng = np.random.default_rng(seed)
    said = [env.reset(seed=0)]
    for _ in range(steps):
        action = rng.uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
        said.append(env.step(action))
        if any(isinstance(part, bool) and part for part in said[-1]):
            said.append(env.reset())
    return said


def steps_of(said):
    return [each for each in said if len(each) > 2]


# CostReturn


def test_the_cost_is_the_third_of_six_values_and_the_others_stay():
    plain, wrapped = walk(tabular(**COSTLY)), walk(CostReturn(tabular(**COSTLY)))
    costs = [step[2] for step in steps_of(wrapped)]
    assert [step[4]["cost"] for step in steps_of(plain)] == costs
    assert max(costs) > 0.0 and min(costs) == 0.0
    kept = [step[:2] + step[3:] if len(step) == 6 else step for step in wrapped]
    assert data_equivalence(plain, kept, exact=True)


def test_an_environment_without_costs_is_refused_at_its_first_step():
    env = CostReturn(gym.make("CartPole-v1"))
    env.reset(seed=0)
    with pytest.raises(ValueError, match="no key 'cost'"):
        env.step(0)


# MultiObjectiveReward


def test_the_vector_return_of_an_episode_is_the_point_of_its_network():
    env = MultiObjectiveReward(tabular(**COSTLY))
    assert env.reward_space.shape == (env.reward_dim,) == (3,)
    total = np.zeros(3)
    ends = 0
    for _, reward, terminated, _, info in steps_of(walk(env)):
        assert env.reward_space.contains(reward)
        total += reward
        if terminated:
            point = [info["accuracy"], -info["params"], -info["macs"]]
            assert np.allclose(total, point, atol=1e-6)
            total[:] = 0.0
            ends += 1
        else:
            assert not total.any()
    assert ends > 5


def test_a_time_limit_inside_ends_an_episode_too():
    env = MultiObjectiveReward(gym.wrappers.TimeLimit(tabular(), max_episode_steps=1))
    env.reset(seed=0)
    _, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert truncated and not terminated
    assert reward[0] == np.float32(info["accuracy"])


def test_the_bounds_of_the_vector_are_where_mo_gymnasium_looks():
    env = pickle.loads(pickle.dumps(MultiObjectiveReward(tabular())))
    assert env.unwrapped.reward_space == env.reward_space
    assert env.unwrapped.reward_dim == 3


def test_mo_gymnasiums_wrappers_work_over_it():
    wrappers = pytest.importorskip("mo_gymnasium.wrappers")
    weight = np.array([0.5, 0.3, 0.2])
    env = wrappers.LinearReward(MultiObjectiveReward(tabular()), weight=weight)
    counted = wrappers.MORecordEpisodeStatistics(MultiObjectiveReward(tabular()))
    for step, other in zip(steps_of(walk(env)), steps_of(walk(counted)), strict=True):
        assert step[1] == pytest.approx(weight @ other[1])
        if step[2]:
            assert np.allclose(other[4]["episode"]["r"], step[4]["vector_reward"])


# PadGroups


def rows(observation, groups, features):
    return observation[: groups * features].reshape(groups, features)


def test_padding_adds_empty_rows_and_a_mark_and_moves_no_number():
    plain, padded = tabular(max_steps=30), PadGroups(tabular(max_steps=30), groups=9)
    own = len(plain.unwrapped.graph.groups)
    rng = np.random.default_rng(0)
    seen, wide = plain.reset(seed=0)[0], padded.reset(seed=0)[0]
    for _ in range(5):
        table = rows(wide, 9, padded.group_features)
        assert padded.observation_space.contains(wide)
        assert np.array_equal(table[:own, :-1], rows(seen, own, padded.group_features - 1))
        assert table[:, -1].tolist() == [1.0] * own + [0.0] * (9 - own)
        assert not table[own:].any()
        tail = seen.size - own * (padded.group_features - 1)
        assert np.array_equal(wide[-tail:], seen[-tail:])
        action = rng.uniform(-1.0, 1.0, 9).astype(np.float32)
        one, other = plain.step(action[:own]), padded.step(action)
        assert one[1:4] == other[1:4]
        assert data_equivalence(one[4], other[4], exact=True)
        seen, wide = one[0], other[0]


@pytest.mark.parametrize("arguments", [{}, COSTLY])
def test_both_checkers_are_silent_on_padded_environments(arguments):
    env = PadGroups(tabular(**arguments), groups=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # That it is wrapped is what is tested.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version.*")
        check_env(env, skip_render_check=True)
        sb3_check_env(env)


@pytest.mark.parametrize(
    ("make", "groups", "message"),
    [
        (lambda: tabular(), 5, "at least 6"),
        (lambda: tabular(), 6.0, "at least 6"),
        (lambda: gym.make("CartPole-v1"), 6, "CNNPrune-v0 or"),
    ],
)
def test_what_cannot_be_padded_is_refused(make, groups, message):
    with pytest.raises(ValueError, match=message):
        PadGroups(make(), groups=groups)


def test_a_bad_padded_action_is_refused_and_moves_nothing():
    env = PadGroups(tabular(), groups=8)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="8 real numbers"):
        env.step(np.zeros(6, np.float32))
    assert env.get_wrapper_attr("state")().step == 0


@pytest.mark.parametrize("pooled", [False, True])
def test_padding_does_not_change_what_the_extractor_makes_of_the_groups(pooled):
    plain: Any = tabular()
    padded: Any = PadGroups(tabular(), groups=9)
    features = padded.group_features
    torch.manual_seed(0)
    narrow = GroupwiseExtractor(plain.observation_space, 6, pooled=pooled)
    wide = GroupwiseExtractor(
        padded.observation_space, 9, group_features=features, pooled=pooled, padded=True
    )
    wide.load_state_dict(narrow.state_dict())
    seen = [step[0] for step in walk(plain)]
    more = [PadGroups._padded(padded, each) for each in seen]
    expected, got = (
        extractor(torch.tensor(np.stack(each)))
        for extractor, each in ((narrow, seen), (wide, more))
    )
    if not pooled:
        hidden = narrow.encoder.hidden
        assert not got[:, 6 * hidden : 9 * hidden].any()
        got = torch.cat([got[:, : 6 * hidden], got[:, 9 * hidden :]], dim=1)
    assert torch.allclose(expected, got, atol=1e-5)
    # Whatever stands in absent rows has no say.
    noisy = torch.tensor(np.stack(more))
    table = noisy[:, : 9 * features].view(-1, 9, features)
    table[:, 6:, :-1] = torch.rand(table[:, 6:, :-1].shape)
    again = wide(noisy)
    assert torch.allclose(again, wide(torch.tensor(np.stack(more))), atol=1e-5)


def test_an_observation_without_any_group_gives_numbers():
    space: Any = PadGroups(tabular(), groups=9).observation_space
    encoder = GroupEncoder(space, 9, group_features=11, padded=True)
    extractor = GroupwiseExtractor(space, 9, group_features=11, padded=True)
    zeros = torch.zeros((2, *space.shape))
    assert torch.isfinite(encoder(zeros)).all() and torch.isfinite(extractor(zeros)).all()


@pytest.fixture
def two_tasks(monkeypatch):
    """Two networks, of 6 groups and of 3, behind equal spaces."""
    small = Task(
        name="small",
        summary="random images",
        build=small_model,
        load_data=lambda root: small_splits(),
        load_weights=lambda model, file, root: None,
        input_shape=(1, 8, 8),
        val_seen=False,
    )
    monkeypatch.setitem(tasks._TASKS, small.name, small)
    return [
        lambda: PadGroups(tabular(), groups=8),
        lambda: PadGroups(CNNPruneEnv(task="small", channels_per_step=0.2), groups=8),
    ]


def test_two_tasks_share_one_gymnasium_vector_environment(two_tasks):
    envs = SyncVectorEnv(two_tasks)
    seen, _ = envs.reset(seed=0)
    marks = [rows(each, 8, 11)[:, -1].sum() for each in seen]
    assert marks == [6, 3]
    for _ in range(5):
        seen, *_ = envs.step(envs.action_space.sample())
    assert envs.observation_space.contains(seen)
    envs.close()


@pytest.mark.parametrize("kind", ["extractor", "policy"])
def test_one_policy_trains_on_two_tasks_at_once(kind, two_tasks):
    reading = {"group_features": 11, "padded": True}
    policy, keywords = (
        (
            "MlpPolicy",
            {
                "features_extractor_class": GroupwiseExtractor,
                "features_extractor_kwargs": {"groups": 8, **reading},
                "net_arch": [16],
            },
        )
        if kind == "extractor"
        else (GroupwiseActorCriticPolicy, reading)
    )
    envs = DummyVecEnv(two_tasks)
    agent = PPO(policy, envs, n_steps=64, batch_size=64, seed=0, policy_kwargs=keywords)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(256)
    assert all(torch.isfinite(parameter).all() for parameter in agent.policy.parameters())
    assert any(
        not torch.equal(old, new)
        for old, new in zip(before, agent.policy.parameters(), strict=True)
    )
    seen: Any = envs.reset()
    actions, _ = agent.predict(seen, deterministic=True)
    assert actions.shape == (2, 8)


# EvaluationCounter


def test_the_counter_says_what_was_spent_and_changes_nothing_else():
    plain, wrapped = walk(tabular(**COSTLY)), walk(EvaluationCounter(tabular(**COSTLY)))
    counts = [each[-1].pop("evaluations") for each in wrapped]
    assert data_equivalence(plain, wrapped, exact=True)
    assert counts[0] == 0 and counts == sorted(counts)
    # Two steps to an episode, of which `final` judges one.
    steps = [count for count, each in zip(counts, wrapped, strict=True) if len(each) > 2]
    assert 0 < steps[-1] <= len(steps) / 2


def test_the_count_begins_with_the_wrapper_and_knows_of_forks_and_of_the_cache():
    inner = tabular(budget={"params": 0.2})
    inner.reset(seed=0)
    inner.step(np.zeros(6, np.float32))
    env: Any = EvaluationCounter(inner)
    assert env.evaluations == 0
    env.reset(seed=0)
    info = env.step(np.zeros(6, np.float32))[4]
    assert info["evaluations"] == 0  # judged before
    env.unwrapped.fork().step(np.ones(6, np.float32))
    env.unwrapped.fork().step(np.eye(6, dtype=np.float32)[2])
    assert env.evaluations == 2
    assert env.reset()[1]["evaluations"] == 2


def test_from_the_limit_on_every_step_is_truncated():
    env: Any = EvaluationCounter(tabular(budget={"params": 0.05}), limit=12)
    said = walk(env, steps=60)
    steps = [(each[4]["evaluations"], each[3]) for each in steps_of(said)]
    assert [truncated for _, truncated in steps] == [count >= 12 for count, _ in steps]
    first = next(count for count, truncated in steps if truncated)
    assert first == 12 and len(steps) == 60 and steps[-1][0] > 12


def test_the_counter_passes_the_checker_and_is_made_again_from_its_spec():
    env = EvaluationCounter(tabular(), limit=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*different from the unwrapped version")
        check_env(env, skip_render_check=True, skip_close_check=True)
    assert env.spec is not None
    again: Any = gym.make(env.spec)
    assert again.limit == 3 and again.evaluations == 0


@pytest.mark.parametrize("limit", [0, -1, 1.5, True])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="give an integer of at least 1"):
        EvaluationCounter(tabular(), limit=limit)


def test_an_environment_that_does_not_count_is_refused():
    with pytest.raises(ValueError, match="which count"):
        EvaluationCounter(gym.make("CartPole-v1"))
