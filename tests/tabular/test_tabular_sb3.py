"""Many episodes on the table as Stable-Baselines3 sees them, beside its own vectoriser."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3.common.vec_env import DummyVecEnv

from pruning_env import CNNPruneTabularVecEnv

SHORT: dict[str, Any] = {"channels_per_step": 0.2}


def same(first: Any, second: Any) -> bool:
    if isinstance(second, OrderedDict):  # which is how Stable-Baselines3 stacks dicts
        second = dict(second)
    return data_equivalence(first, second, exact=True)


@pytest.mark.parametrize(
    "arguments",
    [
        SHORT,
        {**SHORT, "observation": "dict", "reward": "amc"},
        {"constraint": "project", "max_steps": 1},
        {"max_episode_steps": 2},
    ],
    ids=["flat", "dict", "one step", "cut short"],
)
def test_everything_that_comes_back_is_what_stable_baselines_own_vectoriser_gives(
    arguments: dict[str, Any],
) -> None:
    envs = CNNPruneTabularVecEnv(3, **arguments)
    dummy = DummyVecEnv([lambda: gym.make("CNNPruneTabular-v0", **arguments)] * 3)
    assert envs.observation_space == dummy.observation_space
    assert envs.action_space == dummy.action_space
    assert same(envs.reset(), dummy.reset()) and same(envs.reset_infos, dummy.reset_infos)
    rng, ended = np.random.default_rng(0), 0
    for _ in range(8):
        actions = rng.uniform(-1, 1, (3, 6)).astype(np.float32)
        before = [state.step for state in dummy.env_method("state")]
        mine, theirs = envs.step(actions), dummy.step(actions)
        for one, other in zip(mine[:3], theirs[:3], strict=True):
            assert same(one, other)
        assert all(map(same, mine[3], theirs[3]))
        assert same(envs.reset_infos, dummy.reset_infos)
        for slot, info in enumerate(mine[3]):
            last = envs.last_state(slot)
            assert last.step == before[slot] + 1 and last.latest.accuracy == info["accuracy"]
        ended += int(mine[2].sum())
    assert ended > 3


def test_agents_reach_the_environment_behind_the_slots() -> None:
    envs = CNNPruneTabularVecEnv(2, render_mode="rgb_array")
    with pytest.raises(ValueError, match="no step"):
        envs.last_state(0)
    envs.reset()
    envs.step(np.zeros((2, 6), np.float32))
    assert envs.get_attr("evaluations") == [envs.envs.evaluator.evaluations] * 2
    assert envs.get_attr("dynamics", indices=1) == [envs.envs.dynamics]
    envs.set_attr("tag", 7)
    assert envs.envs.single.tag == 7  # type: ignore[attr-defined]
    assert len(envs.env_method("pareto_front", "params", indices=[0])) == 1
    assert envs.env_is_wrapped(gym.Wrapper) == [False, False]
    (picture, _) = envs.get_images()
    assert picture is not None and picture.ndim == 3
    envs.close()


def test_a_bad_action_is_named_by_its_slot_and_no_slot_moves() -> None:
    envs = CNNPruneTabularVecEnv(2)
    envs.reset()
    actions = np.zeros((2, 6), np.float32)
    actions[1, 0] = np.nan
    with pytest.raises(ValueError, match="1"):
        envs.step(actions)
    assert [state.step for state in envs.envs.states()] == [0, 0]
