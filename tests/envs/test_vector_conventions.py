"""Both vector environments beside Gymnasium's own, in every autoreset mode, and in its wrappers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers import vector as wrappers

IDS = ("CNNPrune-v0", "CNNPruneTabular-v0")
SHORT: dict[str, Any] = {"channels_per_step": 0.2}  # episodes of three or four steps
MODES = tuple(AutoresetMode)


FEW: dict[str, Any] = {"val_images": 60, "recovery_images": 40, "importance_images": 40}


def ours(name: str, **arguments: Any) -> Any:
    few: dict[str, Any] = FEW if name == "CNNPrune-v0" else {}
    return gym.make_vec(name, num_envs=3, **few, **{**SHORT, **arguments})


def theirs(envs: Any, mode: AutoresetMode, max_episode_steps: int | None = None) -> VectorEnv:
    """Gymnasium's vector environment of the same episodes."""
    single = envs.single if hasattr(envs, "single") else envs.slots[0]

    def make() -> gym.Env:
        env = single.fork()
        return env if max_episode_steps is None else TimeLimit(env, max_episode_steps)

    return SyncVectorEnv([make] * 3, autoreset_mode=mode)


def same(first: Any, second: Any) -> bool:
    """Whether two steps gave the same, bit for bit; arrays of objects one by one."""
    finals = [step[-1].pop("final_obs", None) for step in (first, second)]
    if (finals[0] is None) != (finals[1] is None):
        return False
    pairs = zip(*finals, strict=True) if finals[0] is not None else ()
    return data_equivalence(first, second, exact=True) and all(
        (one is None and other is None) or data_equivalence(one, other, exact=True)
        for one, other in pairs
    )


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"max_episode_steps": 2},
        {"reward": "final", "observation": "dict", "max_episode_steps": 3},
    ],
)
def test_all_that_comes_back_is_what_gymnasiums_own_vectoriser_gives(
    name: str, mode: AutoresetMode, arguments: dict[str, Any]
) -> None:
    one = ours(name, autoreset_mode=mode, **arguments)
    other = theirs(one, mode, arguments.get("max_episode_steps"))
    assert one.metadata["autoreset_mode"] is mode is one.autoreset_mode
    assert one.observation_space == other.observation_space
    assert one.single_observation_space == other.single_observation_space
    assert one.action_space == other.action_space
    assert same(one.reset(seed=3), other.reset(seed=3))
    one.action_space.seed(3)
    ended = 0
    for step in range(12):
        actions = one.action_space.sample()
        actions[:, 0] += np.arange(3)  # so that episodes end apart
        first, second = one.step(actions), other.step(actions)
        over = first[2] | first[3]
        ended += int(over.sum())
        if step == 5:
            one = pickle.loads(pickle.dumps(one))
        assert [array.dtype for array in first[1:4]] == [array.dtype for array in second[1:4]]
        assert same(first, second)
        if mode is AutoresetMode.DISABLED and over.any():
            masks = [{"reset_mask": over.copy()} for _ in range(2)]
            assert same(one.reset(options=masks[0]), other.reset(options=masks[1]))
    assert ended > 5


@pytest.mark.parametrize("name", IDS)
def test_the_default_is_gymnasiums_and_a_spec_keeps_another(name: str) -> None:
    envs = ours(name)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert type(envs).metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    envs = ours(name, autoreset_mode="SameStep", max_episode_steps=4)
    again: Any = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert again.autoreset_mode is AutoresetMode.SAME_STEP


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"autoreset_mode": "next"}, "autoreset_mode='next'.*'NextStep', 'SameStep', 'Disabled'"),
        ({"max_episode_steps": 0}, "max_episode_steps=0"),
    ],
)
def test_a_bad_argument_is_named(name: str, arguments: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ours(name, **arguments)


@pytest.mark.parametrize("name", IDS)
def test_a_restart_in_the_next_step_costs_nothing_and_ignores_the_action(name: str) -> None:
    envs = ours(name, max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 6), np.float32))
    spent = envs.evaluator.evaluations
    _, rewards, terminations, truncations, infos = envs.step(np.full((3, 6), np.nan, np.float32))
    assert not (rewards.any() or terminations.any() or truncations.any())
    assert infos["params"].tolist() == [1.0] * 3 and envs.evaluator.evaluations == spent


@pytest.mark.parametrize("name", IDS)
def test_a_bad_action_beside_a_slot_that_restarts_is_named_by_its_slot(name: str) -> None:
    envs = ours(name)
    envs.reset(seed=0)
    states = [envs.state(0)]
    while not (step := envs.transition_many(states, np.zeros((1, 6)))[0]).terminated:
        states = [step.state]
    envs.restore(0, states[0])
    assert envs.step(np.zeros((3, 6), np.float32))[2].tolist() == [True, False, False]
    before = envs.states()
    with pytest.raises(ValueError, match="slot 2: action is NaN"):
        envs.step(np.where(np.arange(3)[:, None] == 2, np.nan, np.zeros((3, 6), np.float32)))
    assert envs.states() == before
    envs.step(np.zeros((3, 6), np.float32))
    assert [state.step for state in envs.states()] == [0, 2, 2]


@pytest.mark.parametrize("name", IDS)
def test_without_autoreset_an_episode_that_is_cut_short_must_be_reset(name: str) -> None:
    envs = ours(name, autoreset_mode="Disabled", max_episode_steps=1)
    envs.reset(seed=0)
    assert envs.step(np.zeros((3, 6), np.float32))[3].all()
    with pytest.raises(ResetNeeded, match=r"slot 0: .*reset_mask"):
        envs.step(np.zeros((3, 6), np.float32))
    envs.reset(options={"reset_mask": np.ones(3, bool)})
    envs.step(np.zeros((3, 6), np.float32))


WRAPPERS: dict[str, Any] = {
    "NormalizeObservation": wrappers.NormalizeObservation,
    "NormalizeReward": wrappers.NormalizeReward,
    "FlattenObservation": wrappers.FlattenObservation,
    "DtypeObservation": lambda envs: wrappers.DtypeObservation(envs, np.float64),
    "RescaleObservation": lambda envs: wrappers.RescaleObservation(envs, 0.0, 1.0),
    "RescaleAction": lambda envs: wrappers.RescaleAction(envs, 0.0, 1.0),
    "ClipAction": wrappers.ClipAction,
    "RecordEpisodeStatistics": wrappers.RecordEpisodeStatistics,
}


@pytest.mark.filterwarnings("ignore::UserWarning:gymnasium")
@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_gymnasiums_vector_wrappers_do_over_it_what_they_do_over_gymnasiums(
    name: str, wrapper: str
) -> None:
    bare = ours(name)
    both = [WRAPPERS[wrapper](envs) for envs in (bare, theirs(bare, AutoresetMode.NEXT_STEP))]
    starts = [envs.reset(seed=1)[0] for envs in both]
    both[0].action_space.seed(1)
    for _ in range(6):
        actions = both[0].action_space.sample()
        steps = [envs.step(actions)[:4] for envs in both]
        for one, other in zip(*steps, strict=True):
            assert np.array_equal(np.asarray(one), np.asarray(other))
    assert np.array_equal(np.asarray(starts[0]), np.asarray(starts[1]))


@pytest.mark.parametrize("name", IDS)
def test_frames_of_slots_are_those_of_a_single_environment(name: str) -> None:
    envs = ours(name, render_mode="rgb_array", max_episode_steps=1)
    envs.reset(seed=0)
    envs.step(np.zeros((3, 6), np.float32))
    single = gym.make(name, render_mode="rgb_array", **SHORT, **(FEW if name == IDS[0] else {}))
    single.reset(seed=0)
    frames = [np.asarray(single.render())]
    single.step(np.zeros(6, np.float32))
    frames.append(np.asarray(single.render()))
    assert np.array_equal(envs.render()[1], frames[1])
    envs.step(np.zeros((3, 6), np.float32))
    assert np.array_equal(envs.render()[2], frames[0])


@pytest.mark.parametrize("name", IDS)
def test_a_video_of_all_slots_is_recorded(name: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy", minversion="2")
    envs = wrappers.RecordVideo(
        ours(name, render_mode="rgb_array", max_episode_steps=1),
        str(tmp_path / "videos"),
        video_aspect_ratio=(1, 1),
        episode_trigger=lambda episode: episode == 0,
        disable_logger=True,
    )
    envs.reset(seed=0)
    envs.step(np.zeros((3, 6), np.float32))
    envs.close()
    assert [file.suffix for file in (tmp_path / "videos").iterdir()] == [".mp4"]


@pytest.mark.parametrize("name", IDS)
def test_torchrls_wrapper_steps_it(name: str) -> None:
    libraries = pytest.importorskip("torchrl.envs")
    # By SameStep it fails over Gymnasium's own as well: it reads no dict in `final_info`.
    env = libraries.GymWrapper(ours(name, autoreset_mode="Disabled"))
    rollout = env.rollout(8, break_when_any_done=False)
    assert rollout.batch_size == (3, 8)
    assert rollout["next", "terminated"].any()
