"""Agents that learn: counting evaluations, checkpoints, and going on from one as if nothing was."""

from __future__ import annotations

import dataclasses
import functools
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from pruning_agents.search.checkpoints import Identity
from pruning_agents.search.recording import IncumbentRecorder
from pruning_agents.search.registry import get_agent
from pruning_agents.search.result import IncumbentTracker, Search, SearchResult
from pruning_agents.search.training import Checkpoints, begin, resume, train
from pruning_env.evaluation.ledger import Ledger
from tests.helpers.learners import LEARNERS, env_for, learner_of, same_parameters

EVALUATIONS = 220


def checkpoints(path, name, every=100, **changes):
    identity = dataclasses.replace(Identity(name, 3, EVALUATIONS, "env", {}), **changes)
    return Checkpoints(path / "checkpoint.zip", every, identity)


def scramble():
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)


def whole_run(name, path=None, every=100):
    """A run from the beginning to the end; `path` then holds its last checkpoint."""
    scramble()
    start = begin(learner_of(name), env_for(name), 3)
    saving = None if path is None else checkpoints(path, name, every)
    return train(start, EVALUATIONS, checkpoints=saving)[0]


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run from the beginning to the end, and its last checkpoint."""

    search: Search
    checkpoint: bytes

    def put(self, folder: Path) -> None:
        """Leave the checkpoint where a run in `folder` looks for it."""
        (folder / "checkpoint.zip").write_bytes(self.checkpoint)


@pytest.fixture(scope="module")
def undisturbed() -> Callable[[str], Search]:
    """By the learner's name, a run without checkpoints; tests compare with it and only read it."""
    return functools.cache(whole_run)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Saved]:
    """By the learner's name, a run with checkpoints; tests compare with it and only read it."""

    @functools.cache
    def run(name: str) -> Saved:
        folder = tmp_path_factory.mktemp("saved")
        return Saved(whole_run(name, folder), (folder / "checkpoint.zip").read_bytes())

    return run


def resumed_run(name, path, every=100):
    scramble()
    start = resume(learner_of(name), env_for(name), checkpoints(path, name, every))
    assert start.saved is not None and 0 < start.saved.spent < EVALUATIONS
    return train(start, EVALUATIONS, checkpoints=checkpoints(path, name, every))[0]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "rl-pruner-groupwise" else name
        for name in LEARNERS
    ],
)
def test_a_run_that_is_continued_ends_as_if_it_had_not_been_interrupted(
    name, undisturbed, saved, tmp_path
):
    whole = saved(name).search
    saved(name).put(tmp_path)
    again = resumed_run(name, tmp_path)
    assert whole.result is not None and whole.algorithm is not None
    for other in (undisturbed(name), again):
        assert other.result == whole.result
        assert other.algorithm is not None
        assert other.algorithm.num_timesteps == whole.algorithm.num_timesteps
        assert same_parameters(other.algorithm, whole.algorithm)
        observation = other.algorithm.observation_space.sample()
        actions = [
            each.predict(observation, deterministic=True)[0]
            for each in (whole.algorithm, other.algorithm)
        ]
        assert np.array_equal(*actions)


@pytest.mark.parametrize("name", ["ppo", "sac", "rl-pruner"])
def test_a_run_can_be_continued_from_any_of_its_checkpoints(name, undisturbed, tmp_path):
    # Each continuation writes a later one, from which the next goes on.
    whole = undisturbed(name)
    whole_run(name, tmp_path, every=120)
    first = resumed_run(name, tmp_path, every=30)
    second = resumed_run(name, tmp_path, every=30)
    for each in (first, second):
        assert each.result == whole.result
        assert same_parameters(each.algorithm, whole.algorithm)


def test_trained_weights_and_their_cache_are_part_of_a_checkpoint(tmp_path):
    def make() -> gym.Env:
        settings: dict[str, Any] = {
            "recovery": "finetune",
            "finetune_steps": 1,
            "channels_per_step": 0.3,
        }
        return gym.make("CNNPrune-v0", budget={"params": 0.5}, **settings)

    saving, outcomes = checkpoints(tmp_path, "a2c", 12), []
    for again in (False, True):
        scramble()
        if again:
            start = resume(learner_of("a2c"), make(), saving)
            assert start.saved is not None and 0 < start.saved.spent < 20
        else:
            start = begin(learner_of("a2c"), make(), 3)
        outcomes.append(train(start, 20, checkpoints=saving)[0])
    whole, resumed = outcomes
    assert whole.result is not None and whole.result.state.weights is not None
    assert resumed.result == whole.result
    assert same_parameters(resumed.algorithm, whole.algorithm)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("ppo", "generators"),
        ("sac", "generators"),
        ("ppo", "state"),
        ("a2c", "state"),
        ("ppo", "memory"),
        ("ppo", "tracker"),
        ("sac", "replay"),
    ],
)
def test_what_a_continued_run_does_depends_on_each_part_that_was_saved(name, part, saved, tmp_path):
    # Or the tests above would say nothing of that part.
    whole = saved(name).search
    saved(name).put(tmp_path)
    scramble()
    start: Any = resume(learner_of(name), env_for(name), checkpoints(tmp_path, name))
    env = start.agent.env.envs[0].unwrapped
    if part == "generators":
        scramble()
    elif part == "state":
        env.reset()
    elif part == "memory":
        fresh: Any = env_for(name).unwrapped
        env.evaluator.share(Ledger())  # recalling alone takes back no evaluation
        env.evaluator.recall(fresh.evaluator.memory())
    elif part == "tracker":
        recorder = start.agent.env.envs[0]
        while not isinstance(recorder, IncumbentRecorder):
            recorder = recorder.env
        recorder.tracker = IncumbentTracker("ppo")
    else:
        start.agent.replay_buffer.reset()
    again = train(start, EVALUATIONS)[0]
    assert (again.result, judged(again), True) != (
        whole.result,
        judged(whole),
        same_parameters(again.algorithm, whole.algorithm),
    )


def judged(search):
    """Which entries of the table a search has looked up."""
    (evaluator,) = search.algorithm.get_env().get_attr("evaluator")
    return evaluator.memory()["_seen"].tolist()


@pytest.mark.parametrize("name", LEARNERS)
def test_exactly_the_given_evaluations_are_spent_unless_one_step_needs_several(name):
    env = env_for(name)
    found = get_agent(name).search(env, 60, 0, False)
    assert env.unwrapped.evaluations == 60  # type: ignore[attr-defined]
    assert found.algorithm is not None
    assert found.result is not None and found.result.evaluations == 60
    assert found.result.agent == name
    accuracies = [accuracy for _, accuracy in found.result.history]
    assert accuracies == sorted(accuracies) and accuracies[-1] == found.result.accuracy


@pytest.mark.parametrize("reward", ["accuracy_change", "final"])
def test_training_gives_up_where_there_is_nothing_new_to_judge(reward):
    # One step to the end and few widths: hardly any different prunings.
    env = gym.make(
        "CNNPrune-v0", reward=reward, round_to=16, channels_per_step=1.0, recovery="none"
    )
    search = get_agent("ppo").search(env, 20, 0, False)
    assert env.unwrapped.evaluations < 20  # type: ignore[attr-defined]
    assert search.algorithm is not None and 400 <= search.algorithm.num_timesteps < 800


def test_the_incumbent_is_the_best_end_and_is_told_when_it_improves(tmp_path):
    told: list[SearchResult] = []
    saving = dataclasses.replace(checkpoints(tmp_path, "a2c", 20), improved=told.append)
    search, _ = train(begin(learner_of("a2c"), env_for("a2c"), 3), EVALUATIONS, checkpoints=saving)
    accuracies = [each.accuracy for each in told]
    assert accuracies == sorted(accuracies) and len(set(accuracies)) == len(accuracies) >= 2
    assert search.result is not None and accuracies[-1] <= search.result.accuracy


def test_whoever_is_told_of_an_incumbent_may_draw_random_numbers(undisturbed, tmp_path):
    saving = dataclasses.replace(
        checkpoints(tmp_path, "ppo", 20), improved=lambda result: scramble()
    )
    scramble()
    search, _ = train(begin(learner_of("ppo"), env_for("ppo"), 3), EVALUATIONS, checkpoints=saving)
    assert search.result == undisturbed("ppo").result
    assert same_parameters(search.algorithm, undisturbed("ppo").algorithm)


@pytest.mark.parametrize("length", [0, 10, 0.5, 0.99, -1])
def test_a_truncated_checkpoint_is_refused(saved, length, tmp_path):
    whole = saved("td3").checkpoint
    kept = int(length * len(whole)) if isinstance(length, float) else length
    (tmp_path / "checkpoint.zip").write_bytes(whole[:kept])
    with pytest.raises(ValueError, match=r"checkpoint\.zip is no checkpoint, or a damaged one"):
        resume(learner_of("td3"), env_for("td3"), checkpoints(tmp_path, "td3"))


def test_a_damaged_part_is_refused(saved, tmp_path):
    path = tmp_path / "checkpoint.zip"
    saved("td3").put(tmp_path)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        place = file.getinfo("agent.zip").header_offset + 2_000
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="damaged"):
        resume(learner_of("td3"), env_for("td3"), checkpoints(tmp_path, "td3"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agent": "ddpg"}, "agent is 'td3' there and 'ddpg' here"),
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"evaluations": 7}, "evaluations is 220 there and 7 here"),
        ({"env": "other"}, "env is 'env' there and 'other' here"),
        ({"settings": {"budget": {"params": 0.3}}}, "settings is {} there"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused(saved, change, message, tmp_path):
    saved("td3").put(tmp_path)
    with pytest.raises(ValueError, match=message):
        resume(learner_of("td3"), env_for("td3"), checkpoints(tmp_path, "td3", **change))


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoint"):
        resume(learner_of("td3"), env_for("td3"), checkpoints(tmp_path, "td3"))


def test_a_write_that_fails_leaves_the_checkpoint_before_it(saved, tmp_path, monkeypatch):
    saving = checkpoints(tmp_path, "ppo", 20)
    saved("ppo").put(tmp_path)
    before = saving.path.read_bytes()

    def fail(*arguments, **keywords):
        raise OSError("the disk is full")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OSError, match="full"):
        train(begin(learner_of("ppo"), env_for("ppo"), 3), EVALUATIONS, checkpoints=saving)
    assert saving.path.read_bytes() == before and list(tmp_path.iterdir()) == [saving.path]
