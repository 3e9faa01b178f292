"""`CNNPruneWorlds-v0`: another network at each reset, in spaces that are the same for all."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env, data_equivalence
from stable_baselines3.common.env_checker import check_env as check_env_of_sb3

from pruning_env.tasks.pools.storage import POOLS, open_pool
from pruning_env.worlds.budgets import DEFAULT_RANGES
from pruning_env.worlds.env import ROWS, CNNPruneWorldsEnv
from pruning_env.worlds.observation import TRANSFER_FEATURES, TRANSFER_GLOBALS

QUICK: dict[str, Any] = {
    "networks": [0, 1],
    "recovery": "none",
    "importance_images": 16,
    "val_images": 20,
}


def make(**arguments: Any) -> gym.Env:
    return gym.make("CNNPruneWorlds-v0", **{**QUICK, **arguments})


@pytest.fixture(scope="module")
def env() -> gym.Env:
    return make()


def worlds(env: gym.Env) -> CNNPruneWorldsEnv:
    inside = env.unwrapped
    assert isinstance(inside, CNNPruneWorldsEnv)
    return inside


def test_both_checks_of_environments_are_silent() -> None:
    for observation in ("flat", "dict"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            if observation == "dict":  # matrices are meant; SB3's own networks flatten them
                warnings.filterwarnings("ignore", ".*unconventional shape")
            inside = make(observation=observation, networks=[0]).unwrapped
            check_env(inside, skip_render_check=True)
            check_env_of_sb3(inside)


def test_a_seed_decides_networks_budgets_and_outcomes(env: gym.Env) -> None:
    action = np.linspace(-1, 1, ROWS, dtype=np.float32)

    def episodes(seed: int) -> list[Any]:
        seen = [env.reset(seed=seed), env.step(action)]
        for _ in range(3):
            seen += [env.reset(), env.step(action)]
        return seen

    assert data_equivalence(episodes(3), episodes(3))
    limits = {str(env.reset(seed=seed)[1]["limits"]) for seed in range(4)}
    assert len(limits) == 4
    assert {env.reset(seed=seed)[1]["network"] for seed in range(12)} == {0, 1}


def test_options_choose_network_and_budget_and_leave_the_draws_alone(env: gym.Env) -> None:
    plain = [env.reset(seed=5)[1], env.reset()[1]]
    chosen = {"network": 1, "budget": {"macs": 0.5}}
    _, info = env.reset(seed=5, options=chosen)
    assert (info["network"], info["limits"]) == (1, {"macs": 0.5})
    assert env.reset()[1] == plain[1]


def test_an_episode_is_one_of_cnnprune_on_the_same_network(env: gym.Env) -> None:
    observation, _ = env.reset(options={"network": 1, "budget": {"macs": 0.4}})
    inner = gym.make(
        "CNNPrune-v0",
        task="pool-train-1",
        budget={"macs": 0.4},
        constraint="project",
        max_steps=1,
        **{name: value for name, value in QUICK.items() if name != "networks"},
    )
    plain, _ = inner.reset()
    count = len(inner.unwrapped.graph.groups)  # type: ignore[attr-defined]
    rows = observation[: ROWS * worlds(env).group_features].reshape(ROWS, -1)
    np.testing.assert_array_equal(rows[:count, :10], plain[: 10 * count].reshape(count, 10))
    assert rows[:count, -1].all() and not rows[count:].any()
    action = np.random.default_rng(0).uniform(-1, 1, ROWS).astype(np.float32)
    _, reward, terminated, _, info = env.step(action)
    _, expected, *_, alone = inner.step(action[:count])
    assert terminated and reward == expected
    assert {name: info[name] for name in alone} == alone
    assert set(info) - set(alone) == {"network", "limits"}


def test_numbers_of_absent_groups_do_nothing(env: gym.Env) -> None:
    chosen = {"network": 0, "budget": {"macs": 0.4}}
    env.reset(options=chosen)
    count = len(worlds(env).episode.graph.groups)
    action = np.zeros(ROWS, dtype=np.float32)
    action[count:] = np.nan
    env.step(action)
    before = worlds(env).state().counts
    env.reset(options=chosen)
    env.step(np.zeros(ROWS, dtype=np.float32))
    np.testing.assert_array_equal(worlds(env).state().counts, before)


def test_every_episode_meets_its_budget_and_the_limit_is_observed() -> None:
    env = make(budget={"macs": [0.3, 0.5], "params": [0.4, 0.4]}, networks=[0])
    kinds = set()
    names = worlds(env).observation_names
    for seed in range(8):
        observation, info = env.reset(seed=seed)
        limits = info["limits"]
        kinds.add(min(limits, key=limits.__getitem__))
        assert sorted(limits.values())[1] == 1.0
        for name, limit in limits.items():
            assert observation[names.index(f"over_budget/{name}")] == pytest.approx(1 - limit)
        *_, info = env.step(env.action_space.sample())
        assert info["is_success"] and all(info["usage"][n] <= limits[n] for n in limits)
    assert kinds == {"macs", "params"}


def test_a_pickled_environment_goes_on_as_the_original(env: gym.Env) -> None:
    env.reset(seed=2)
    twin = pickle.loads(pickle.dumps(env))
    action = np.full(ROWS, 0.3, dtype=np.float32)
    assert data_equivalence(env.step(action), twin.step(action))
    assert data_equivalence(env.reset(), twin.reset())


def test_several_step_together_as_alone(env: gym.Env) -> None:
    envs = gym.make_vec("CNNPruneWorlds-v0", num_envs=2, **QUICK)
    observations, infos = envs.reset(seed=4)
    alone = [env.reset(seed=4 + slot) for slot in range(2)]
    np.testing.assert_array_equal(observations, [observation for observation, _ in alone])
    np.testing.assert_array_equal(infos["network"], [info["network"] for _, info in alone])


def test_adjacency_says_which_group_reads_which() -> None:
    env = make(observation="dict", networks=[0])
    observation, _ = env.reset(seed=0)
    groups = worlds(env).episode.graph.groups
    reads = observation["adjacency"]
    assert not reads[len(groups) :].any() and not reads[:, len(groups) :].any()
    for row, group in enumerate(groups):
        for column, other in enumerate(groups):
            assert bool(reads[row, column]) == bool(set(group.consumers) & set(other.layers))
    assert reads[0].any()
    assert observation["mask"].sum() == len(groups)


def test_what_is_lost_rises_with_what_goes_and_features_differ_between_networks() -> None:
    env = make()
    tables = []
    for network in (0, 1):
        observation, _ = env.reset(options={"network": network})
        table = observation[: ROWS * worlds(env).group_features].reshape(ROWS, -1)
        tables.append(table[: len(worlds(env).episode.graph.groups)])
        for kind in ("importance", "reconstruction"):
            names = [f.name for f in TRANSFER_FEATURES]
            at = [10 + names.index(f"{kind}_lost_{percent}") for percent in (25, 50, 75)]
            assert (np.diff(tables[-1][:, at], axis=1) >= 0).all()
            assert 0 < tables[-1][:, at].mean() < 0.95
    assert tables[0].shape != tables[1].shape or not np.allclose(tables[0], tables[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool": "nothing"}, "pool='nothing' is unknown; give one of train, test"),
        ({"networks": [10**6]}, r"networks=\[1000000\] is not allowed; give numbers from 0 to"),
        ({"networks": []}, r"networks=\[\] is not allowed"),
        ({"budget": {"latency": 0.5}}, "budget key='latency' is unknown; allowed: macs, params"),
        ({"budget": {"macs": (0.6, 0.2)}}, "the lower end goes first"),
        ({"rows": 2}, "rows=2 is not allowed; give an integer of at least"),
        ({"action": "counts"}, "action='counts' is unknown; allowed: distribution, ratio"),
        ({"observation": "graph"}, "observation='graph' is unknown; allowed: dict, flat"),
        ({"task": "digits-resnet8"}, "task='digits-resnet8' is not allowed; see pool="),
        ({"render_mode": "human"}, "render_mode='human' is unknown"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CNNPruneWorldsEnv(**arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": 10**6}, "has networks 0 to"),
        ({"network": True}, "has networks 0 to"),
        ({"budget": {"params": 0.5}}, "those that the environment was made with"),
        ({"budget": {"macs": 2}}, r"give a number in \(0, 1\]"),
        ({"state": None}, "is not allowed; give None or some of"),
    ],
)
def test_bad_options_are_refused_and_change_nothing(
    env: gym.Env, options: dict[str, Any], message: str
) -> None:
    env.reset(seed=1)
    before = worlds(env).state()
    with pytest.raises(ValueError, match=message):
        env.reset(options=options)
    assert worlds(env).state() is before


def test_a_bad_action_leaves_the_episode_as_it_was(env: gym.Env) -> None:
    env.reset(seed=1)
    for action in (np.zeros(3, np.float32), np.full(ROWS, np.nan, np.float32)):
        with pytest.raises(ValueError, match="action"):
            env.step(action)
    env.step(np.zeros(ROWS, np.float32))
    with pytest.raises(gym.error.ResetNeeded):
        env.step(np.zeros(ROWS, np.float32))


def test_shipped_networks_fit_the_padded_spaces() -> None:
    assert all(open_pool(name).groups <= ROWS for name in POOLS)


def test_the_page_has_the_features_the_arguments_and_the_size_that_the_code_has(
    env: gym.Env,
) -> None:
    text = inspect.getdoc(CNNPruneWorldsEnv) or ""
    for feature in (*TRANSFER_FEATURES, *TRANSFER_GLOBALS):
        row = rf"\| `{feature.name}` +\| {feature.low} +\| {feature.high} +\| "
        row += rf"{re.escape(feature.meaning)} +\|"
        assert re.search(row, text), feature.name
    parameters = list(inspect.signature(CNNPruneWorldsEnv).parameters.values())[:-1]
    for parameter in parameters:
        default = DEFAULT_RANGES if parameter.name == "budget" else parameter.default
        row = rf"\| `{parameter.name}` +\| \w+ +\| `{re.escape(repr(default))}` +\|"
        assert re.search(row, text.replace('"', "'")), parameter.name
    assert f"`groups` (N, {worlds(env).group_features - 1})" in text
    assert len(worlds(env).observation_names) == env.observation_space.shape[0]  # type: ignore[index]
