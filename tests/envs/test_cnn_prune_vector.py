"""`gym.make_vec("CNNPrune-v0")` beside single environments, and what only many slots can do."""

from __future__ import annotations

import inspect
import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv
from tests.helpers.small import count_calls

SHORT: dict[str, Any] = {"channels_per_step": 0.2}  # episodes of three or four steps


def same(first, second):
    return data_equivalence(first, second, exact=True)


def make(num_envs=3, **arguments):
    return CNNPruneVectorEnv(num_envs, **{**SHORT, **arguments})


@pytest.fixture(scope="module")
def original():
    return make()


@pytest.fixture
def envs(original):
    original.reset(seed=0)
    original.action_space.seed(0)
    return original


@pytest.fixture
def zeros(envs):
    return np.zeros(envs.action_space.shape, np.float32)


def finish(envs, actions):
    """Step with the same actions to the first end of an episode; that step's return value."""
    while True:
        result = envs.step(actions)
        if result[2].any():
            return result


# Beside single environments


def test_every_slot_equals_a_single_environment_over_several_episodes(envs):
    singles = [CNNPruneEnv(**SHORT) for _ in range(3)]
    observations, infos = envs.reset(seed=7)
    starts = [env.reset(seed=7 + slot) for slot, env in enumerate(singles)]
    assert all(same(row, start[0]) for row, start in zip(observations, starts, strict=True))
    ended = 0
    for _ in range(14):
        actions = envs.action_space.sample()
        observations, rewards, terminations, truncations, infos = envs.step(actions)
        assert not truncations.any()
        for slot, env in enumerate(singles):
            observation, reward, terminated, _, info = env.step(actions[slot])
            assert rewards[slot] == reward and terminations[slot] == terminated
            assert ("final_info" in infos and infos["_final_info"][slot]) == terminated
            if terminated:
                ended += 1
                assert same(infos["final_obs"][slot], observation)
                final = infos["final_info"]
                assert {
                    key: final[key][slot] for key in info if not isinstance(info[key], dict)
                } == {key: value for key, value in info.items() if not isinstance(info[key], dict)}
                observation, info = env.reset()
            assert same(observations[slot], observation)
            for key, value in info.items():
                if not isinstance(info[key], dict):
                    assert infos[key][slot] == value and infos[f"_{key}"][slot]
            for key in ("usage", "reward_terms"):
                assert {k: infos[key][k][slot] for k in info[key]} == info[key]
            assert envs.state(slot) == env.state()
    assert ended > 6
    assert all(
        a.random() == b.np_random.random() for a, b in zip(envs.np_random, singles, strict=True)
    )


@pytest.mark.parametrize("arguments", [{}, {"reward": "rl_pruner", "budget": {"macs": 0.4}}])
def test_everything_that_comes_back_is_what_gymnasiums_own_vectoriser_gives(arguments):
    ours = gym.make_vec("CNNPrune-v0", num_envs=3, **SHORT, **arguments)
    theirs = gym.make_vec(
        "CNNPrune-v0",
        num_envs=3,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        **SHORT,
        **arguments,
    )
    for name in ("observation_space", "action_space"):
        assert getattr(ours, name) == getattr(theirs, name)
        assert getattr(ours, f"single_{name}") == getattr(theirs, f"single_{name}")
    assert {**theirs.metadata, "autoreset_mode": AutoresetMode.SAME_STEP} == ours.metadata
    assert same(ours.reset(seed=3), theirs.reset(seed=3))
    assert ours.np_random_seed == theirs.np_random_seed == (3, 4, 5)
    ours.action_space.seed(3)
    ended = 0
    for _ in range(10):
        actions = ours.action_space.sample()
        first, second = ours.step(actions), theirs.step(actions)
        ended += int(first[2].sum())
        for mine, other in zip(first[:4], second[:4], strict=True):
            assert mine.dtype == other.dtype and np.array_equal(mine, other)
        finals = [step[4].pop("final_obs", None) for step in (first, second)]
        assert (finals[0] is None) == (finals[1] is None)
        if finals[0] is not None:
            assert all(map(same, *finals))
        assert list(first[4]) == list(second[4])
        assert same(first[4], second[4])
    assert ended > 3


def test_candidates_of_one_step_are_evaluated_in_one_call(envs, monkeypatch):
    calls = count_calls(monkeypatch, envs.evaluator)
    envs.step(envs.action_space.sample())
    assert calls == [3]


def test_all_slots_share_one_network_one_evaluator_and_one_dynamics(envs):
    assert {id(slot.dynamics) for slot in envs.slots} == {id(envs.dynamics)}
    assert {id(slot.evaluator) for slot in envs.slots} == {id(envs.evaluator)}
    assert envs.graph is envs.evaluator.graph is envs.dynamics.graph


# Gymnasium's conventions


def test_make_vec_makes_it_and_says_how_it_resets():
    envs: Any = gym.make_vec("CNNPrune-v0", num_envs=64, budget={"macs": 0.5})
    assert isinstance(envs, CNNPruneVectorEnv) and envs.num_envs == 64
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert envs.dynamics.budgets[0].name == "macs"
    observations, _ = envs.reset(seed=0)
    assert observations in envs.observation_space and observations.shape[0] == 64
    assert envs.spec is not None and envs.spec.id == "CNNPrune-v0"
    again: Any = gym.make_vec(EnvSpec.from_json(envs.spec.to_json()))
    assert again.num_envs == 64 and again.unwrapped.dynamics.budgets == envs.dynamics.budgets
    envs.close()
    assert envs.closed


def test_spaces_are_the_batched_spaces_of_a_single_environment(envs):
    single = CNNPruneEnv(**SHORT)
    assert envs.single_action_space == single.action_space
    assert envs.single_observation_space == single.observation_space
    assert envs.action_space == batch_space(single.action_space, 3)
    assert envs.observation_space == batch_space(single.observation_space, 3)


def test_observations_and_arrays_that_came_back_are_the_callers_own(envs, zeros):
    envs.reset()
    step = envs.step(zeros)
    kept = pickle.loads(pickle.dumps(step))
    envs.step(zeros)
    assert same(step, kept)
    for array in step[:4]:
        array[:] = 1
    envs.reset()
    assert same(envs.step(zeros), kept)


def test_one_seed_and_the_same_actions_give_the_same_bits(envs):
    def play():
        envs.action_space.seed(5)
        return [envs.reset(seed=5)] + [envs.step(envs.action_space.sample()) for _ in range(6)]

    first, second = play(), play()
    for one, other in zip(first, second, strict=True):
        assert data_equivalence(str(one), str(other))


@pytest.mark.parametrize("seed", [4, [4, 5, 6]])
def test_slots_are_seeded_apart_by_a_number_or_one_by_one_by_a_list(envs, seed):
    envs.reset(seed=seed)
    expected = [np.random.Generator(np.random.PCG64(4 + slot)).random() for slot in range(3)]
    assert [generator.random() for generator in envs.np_random] == expected


def test_resetting_with_a_mask_resets_those_slots_only(envs, zeros):
    envs.step(zeros)
    kept = envs.state(1)
    observations, infos = envs.reset(options={"reset_mask": np.array([True, False, True])})
    assert [state.step for state in envs.states()] == [0, 1, 0] and envs.state(1) is kept
    assert same(observations[1], envs.slots[1].observe(kept))
    assert infos["_params"].tolist() == [True, False, True]


def test_resetting_to_a_state_starts_every_slot_there(envs, zeros):
    envs.step(zeros)
    checkpoint = envs.state(0)
    options = {"state": checkpoint}
    _, infos = envs.reset(seed=1, options=options)
    assert envs.states() == (checkpoint,) * 3 and options == {"state": checkpoint}
    assert infos["params"].tolist() == [checkpoint.params] * 3


def test_gymnasiums_vector_wrappers_work_on_it():
    envs, single = RecordEpisodeStatistics(make()), CNNPruneEnv(**SHORT)
    envs.reset(seed=0)
    single.reset()
    _, rewards, _, _, infos = finish(envs, np.zeros(envs.action_space.shape, np.float32))
    episode = [single.step(np.zeros(6, np.float32))]
    while not episode[-1][2]:
        episode.append(single.step(np.zeros(6, np.float32)))
    assert infos["episode"]["l"].tolist() == [len(episode)] * 3
    assert infos["episode"]["r"] == pytest.approx([sum(step[1] for step in episode)] * 3)
    assert rewards.tolist() == [episode[-1][1]] * 3


def test_an_episode_raises_no_warning(envs, zeros):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        finish(envs, zeros)


def test_rendering_gives_one_frame_per_slot_or_warns_without_a_mode(envs, zeros):
    with pytest.warns(UserWarning, match="render_mode"):
        assert envs.render() is None
    drawn = make(2, render_mode="ansi")
    assert drawn.render_mode == "ansi"
    drawn.reset()
    drawn.step(zeros[:2])
    drawn.restore(1, drawn.dynamics.initial())
    first, second = drawn.render()
    assert first == drawn.slots[0].render() != second


# States of slots


def test_a_slots_state_can_be_kept_and_restored_without_moving_the_others(envs, zeros):
    envs.step(zeros)
    checkpoint, others = envs.state(1), envs.states()
    envs.step(zeros)
    after = envs.states()
    envs.restore(1, checkpoint)
    assert envs.states() == (after[0], checkpoint, after[2]) and others[1] is checkpoint


def test_transitions_from_any_states_say_what_steps_would_do_and_move_nothing(envs, zeros):
    before = envs.states()
    actions = envs.action_space.sample()
    steps = envs.transition_many(before, actions)
    assert envs.states() == before
    rewards = envs.step(actions)[1]
    assert [step.state for step in steps] == list(envs.states())
    assert [step.reward for step in steps] == rewards.tolist()
    one = envs.transition_many([before[0]] * 5, np.repeat(zeros[:1], 5, axis=0))
    assert len({step.state for step in one}) == 1


def test_a_foreign_state_is_refused_by_its_place(envs, zeros):
    foreign = make(1, importance="l1")
    foreign.reset()
    foreign.step(zeros[:1])
    before = envs.states()
    with pytest.raises(ValueError, match=r"slot 1: state\.keep"):
        envs.transition_many([before[0], foreign.state(0)], zeros[:2])
    with pytest.raises(ValueError, match="state"):
        envs.restore(0, foreign.state(0))
    assert envs.states() == before


@pytest.mark.parametrize("slot", [-1, 3, 0.5, True, None])
def test_a_slot_that_does_not_exist_is_refused(envs, slot):
    for use in (lambda: envs.state(slot), lambda: envs.restore(slot, envs.states()[0])):
        with pytest.raises(ValueError, match=r"slot=.*0 to 2"):
            use()


# Misuse


def test_before_the_first_reset_nothing_steps(zeros):
    fresh = make(3)
    with pytest.raises(ResetNeeded, match=r"slot 0: .*reset"):
        fresh.step(zeros)


def test_a_slot_restored_to_an_end_must_be_reset_and_no_slot_moves(envs, zeros):
    ends = [s for s in envs.transition_many(envs.states(), zeros)]
    while not ends[1].terminated:
        ends = envs.transition_many([end.state for end in ends], zeros)
    envs.restore(1, ends[1].state)
    before = envs.states()
    with pytest.raises(ResetNeeded, match=r"slot 1: .*over"):
        envs.step(zeros)
    assert envs.states() == before


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: np.where(np.arange(3)[:, None] == 2, np.nan, a), "slot 2: action is NaN"),
        (lambda a: a[:2], "actions: 2 given for 3"),
        (lambda a: a[:, :4], "slot 0: action has shape"),
        (lambda a: None, "actions"),
        (lambda a: 1.0, "actions"),
    ],
)
def test_bad_actions_raise_by_name_and_no_slot_moves(envs, zeros, spoil, reason):
    before = envs.states()
    with pytest.raises(ValueError, match=reason):
        envs.step(spoil(zeros))
    assert envs.states() == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"seed": [1, 2]}, "seed=.*3"),
        ({"seed": "a"}, "seed="),
        ({"options": {"state": 1}}, "state=1"),
        ({"options": {"stat": 1}}, "options="),
        ({"options": {"reset_mask": [True] * 3}}, "reset_mask"),
        ({"options": {"reset_mask": np.ones(2, bool)}}, "reset_mask"),
        ({"options": {"reset_mask": np.zeros(3, bool)}}, "reset_mask"),
    ],
)
def test_bad_reset_arguments_raise_and_change_nothing(envs, zeros, arguments, reason):
    envs.step(zeros)
    before = envs.states()
    with pytest.raises(ValueError, match=reason):
        envs.reset(**arguments)
    assert envs.states() == before


@pytest.mark.parametrize("num_envs", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_slots_is_refused(num_envs):
    with pytest.raises(ValueError, match="num_envs="):
        CNNPruneVectorEnv(num_envs)


def test_arguments_are_those_of_the_single_environment_and_wrong_ones_are_refused():
    with pytest.raises(ValueError, match="reward='acc'"):
        CNNPruneVectorEnv(2, reward="acc")
    with pytest.raises(TypeError, match="tusk"):
        CNNPruneVectorEnv(2, tusk="digits-resnet8")


def test_a_pickle_holds_no_network_and_continues_alike_sharing_one(envs, zeros):
    envs.step(zeros)
    data = pickle.dumps(envs)
    assert len(data) < 40_000
    twin = pickle.loads(data)
    assert twin.states() == envs.states()
    assert {id(slot.evaluator) for slot in twin.slots} == {id(twin.evaluator)}
    assert same(twin.step(zeros), envs.step(zeros))


def test_the_single_environments_docs_page_shows_the_vector_environments_arguments():
    docs = inspect.getdoc(CNNPruneEnv) or ""
    section = docs[docs.index("## Vectorized environment") : docs.index("## Version History")]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("| `")]
    documented = {row[0].strip(" `"): row[2].strip(" `") for row in rows}
    parameters = list(inspect.signature(CNNPruneVectorEnv).parameters.values())
    named = [p for p in parameters if p.kind is not p.VAR_KEYWORD]
    assert documented == {p.name: repr(p.default) for p in named}
