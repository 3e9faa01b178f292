"""`recover_when="commit"`: candidates are judged as cut, what a step goes on with is trained."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv
from pruning_env.evaluation.evaluator import Recovered
from pruning_env.evaluation.metrics import Metrics
from pruning_env.evaluation.recovery.finetuning import FineTuning
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.rewards import get_reward
from pruning_env.tasks.storage import load_pruned, save_pruned
from tests.helpers.small import small_dynamics, small_evaluator

FEW = FineTuning(steps=3, lr=0.05, batch_size=16)
STILL = np.zeros(3)
SHORT: dict[str, Any] = {
    "recovery": "finetune",
    "recover_when": "commit",
    "finetune_steps": 2,
    "channels_per_step": 0.2,
    "val_images": 50,
    "budget": {"params": 0.4},
}


def committing(recover_when: str = "commit", **options: Any) -> PruningDynamics:
    evaluator = small_evaluator(recovery="finetune", finetuning=FEW, recover_when=recover_when)
    return small_dynamics(evaluator, {"params": 0.2}, channels_per_step=0.15, **options)


def same_weights(first, second):
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_candidate_is_judged_as_it_was_cut_and_nothing_is_trained(monkeypatch):
    dynamics = committing()
    trained = []
    monkeypatch.setattr(dynamics.evaluator._tuner, "train", lambda *_, **__: trained.append(1))
    candidate = dynamics.transition(dynamics.initial(), STILL).state
    assert trained == [] and candidate.weights is None
    plain = small_evaluator(recovery="none")
    assert candidate.metrics == plain.evaluate(candidate.keep)


def test_a_commit_trains_as_fine_tuning_does_and_its_weights_are_carried_on():
    dynamics, training = committing(), committing("candidate")
    first = dynamics.commit(dynamics.initial(), STILL)
    same = training.transition(training.initial(), STILL)
    assert (first.state.metrics, first.state.weights) == (same.state.metrics, same.state.weights)
    assert first.reward == same.reward
    candidate = dynamics.transition(first.state, STILL).state
    assert candidate.weights == first.state.weights  # of the network before the cut
    cut = dynamics.evaluator.pruned_model(candidate.keep, candidate.weights)
    images, labels = dynamics.evaluator.images("search-val")
    with torch.inference_mode():
        right = (cut(images).argmax(1) == labels).float().mean().item()
    assert candidate.latest.accuracy == pytest.approx(right)


def test_a_commit_costs_one_evaluation_and_is_remembered():
    dynamics = committing()
    first = dynamics.commit(dynamics.initial(), STILL)
    assert dynamics.evaluator.evaluations == 1
    assert dynamics.commit(dynamics.initial(), STILL) == first
    assert dynamics.evaluator.evaluations == 1
    dynamics.transition(dynamics.initial(), STILL)  # the same channels, but not trained
    assert dynamics.evaluator.evaluations == 2


def test_only_every_nth_commit_is_trained_and_the_last_of_an_episode():
    dynamics = committing(recover_every=3, constraint="cost", max_steps=5)
    state, trained = dynamics.initial(), []
    while not dynamics.terminal(state):
        state = dynamics.commit(state, STILL).state
        weights = state.weights
        trained.append(weights is not None and np.array_equal(weights.keep, state.keep))
    assert trained == [False, False, True, False, True]


def test_the_student_becomes_the_teacher_where_it_is_better_on_search_val(monkeypatch):
    dynamics = committing()
    taught = []
    tuner = dynamics.evaluator._tuner
    assert tuner is not None
    train = tuner.train

    def watched(model, seed, *, teacher=None, **rest):
        taught.append(teacher)
        train(model, seed, teacher=teacher, **rest)

    monkeypatch.setattr(tuner, "train", watched)
    dense = dynamics.evaluator.dense
    start = dynamics.initial()
    first = dynamics.commit(start, STILL).state
    assert taught == [None]  # the dense network
    better = Metrics(dense.accuracy + 0.01, 1.0)
    student = dataclasses.replace(first.teacher or _recovered(first), metrics=better)
    second = dynamics.commit(dataclasses.replace(first, teacher=student), STILL).state
    assert same_weights(taught[1], dynamics.evaluator.pruned_model(first.keep, first.weights))
    # It stays the teacher until one is better than that.
    expected = student if second.latest.accuracy <= better.accuracy else _recovered(second)
    assert second.teacher == expected
    untaught = dynamics.commit(dataclasses.replace(first, teacher=None), STILL).state
    assert untaught.weights != second.weights


def _recovered(state):
    return Recovered(state.metrics, state.weights)


def test_a_worse_student_does_not_teach(monkeypatch):
    dynamics = committing()
    monkeypatch.setattr(dynamics.evaluator, "dense", Metrics(1.0, 0.0), raising=False)
    assert dynamics.commit(dynamics.initial(), STILL).state.teacher is None
    monkeypatch.setattr(dynamics.evaluator, "dense", Metrics(0.0, 9.0), raising=False)
    after = dynamics.commit(dynamics.initial(), STILL).state
    assert after.teacher == _recovered(after)


def test_commits_are_trained_where_the_reward_is_lazy_too():
    dynamics = committing(reward=get_reward("final"))
    candidate = dynamics.transition(dynamics.initial(), STILL)
    committed = dynamics.commit(dynamics.initial(), STILL)
    assert candidate.state.metrics is None and committed.state.metrics is not None
    assert committed.state.weights is not None and committed.reward == 0.0


def test_many_commits_equal_single_ones_bit_for_bit():
    dynamics, alone = committing(), committing()
    root = dynamics.commit(dynamics.initial(), STILL).state
    states, actions = [root, root, dynamics.initial()], np.eye(3)
    together = dynamics.commit_many(states, actions)
    assert together == [alone.commit(s, a) for s, a in zip(states, actions, strict=True)]


def test_without_it_a_commit_is_a_transition():
    dynamics = small_dynamics(small_evaluator(), {"params": 0.2}, channels_per_step=0.15)
    start = dynamics.initial()
    assert dynamics.commit(start, STILL) == dynamics.transition(start, STILL)


def test_states_of_candidates_and_commits_are_known_again_and_strangers_refused():
    dynamics = committing()
    first = dynamics.commit(dynamics.initial(), STILL).state
    candidate = dynamics.transition(first, STILL).state
    for state in (first, candidate, pickle.loads(pickle.dumps(first))):
        assert dynamics.check(state) == state
    other = small_dynamics(small_evaluator(), {"params": 0.2}, channels_per_step=0.15)
    with pytest.raises(ValueError, match="trains none"):
        other.check(first)
    second = dynamics.commit(first, STILL).state
    with pytest.raises(ValueError, match="other channels"):
        dynamics.check(dataclasses.replace(first, weights=second.weights))
    stranger: Any = "nobody"
    with pytest.raises(ValueError, match=r"state\.teacher"):
        dynamics.check(dataclasses.replace(first, weights=None, teacher=stranger))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"recover_when": "never"}, "recover_when='never'"),
        ({"recover_when": "commit", "recovery": "bn"}, "recover_when='commit'.*finetune"),
        ({"recover_every": 0}, "recover_every=0"),
        ({"finetune_arguments": {"speed": 1}}, "finetune_arguments"),
        ({"finetune_arguments": {"temperature": 0}}, "temperature=0"),
        ({"finetune_arguments": {"schedule": "steep"}}, "schedule='steep'"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        CNNPruneEnv(**{"recovery": "finetune", **arguments})


@pytest.fixture(scope="module")
def env():
    return CNNPruneEnv(**SHORT)


def test_the_environment_commits_and_its_transitions_do_not(env):
    env.reset(seed=0)
    start = env.state()
    action = np.linspace(-1, 1, 6).astype(np.float32)
    candidate = env.transition(start, action)
    observation, reward, _, _, info = env.step(action)
    committed = env.dynamics.commit(start, action)
    assert env.state() == committed.state and reward == committed.reward
    assert info["accuracy"] == committed.state.latest.accuracy
    assert candidate.state.weights is None and env.state().weights is not None
    twin = env.fork()
    twin.restore(start)
    assert data_equivalence(twin.advance(candidate)[0], observation)
    assert twin.state() == env.state()
    twin.restore(candidate.state)
    assert twin.state() == candidate.state


def test_what_is_handed_over_and_stored_is_the_committed_network(env, tmp_path):
    env.reset(seed=0)
    env.step(np.zeros(6, np.float32))
    model = env.pruned_model()
    images, labels = env.evaluator.images("search-val")
    with torch.inference_mode():
        right = (model(images).argmax(1) == labels).float().mean().item()
    assert env.state().latest.accuracy == pytest.approx(right)
    save_pruned(tmp_path / "small", model, env.graph, env.state().keep, architecture=env.task_name)
    assert same_weights(load_pruned(tmp_path / "small"), model)


def test_the_vector_environment_commits_as_the_single_one_does(env):
    actions = np.linspace(-1, 1, 12).reshape(2, 6).astype(np.float32)
    vector = CNNPruneVectorEnv(num_envs=2, **SHORT)
    vector.reset(seed=0)
    steps = vector.step_slots(actions)
    for action, step, state in zip(actions, steps, vector.states(), strict=True):
        env.reset(seed=0)
        observation, reward, _, _, _ = env.step(action)
        assert data_equivalence(observation, step.observation) and reward == step.reward
        assert state == env.state() and state.weights is not None
    tried = vector.transition_many([vector.state(0)], actions[:1])[0].state
    assert tried.weights == vector.state(0).weights
    again = pickle.loads(pickle.dumps(vector))
    assert again.states() == vector.states()


def test_a_copy_goes_on_as_the_original_does(env):
    env.reset(seed=0)
    env.step(np.zeros(6, np.float32))
    twin = copy.deepcopy(env)
    other = gym.make("CNNPrune-v0", **SHORT).unwrapped
    other.restore(env.state())  # type: ignore[attr-defined]
    results = [each.step(np.ones(6, np.float32)) for each in (env, twin, other)]
    assert data_equivalence(results[0][0], results[1][0])
    assert data_equivalence(results[0][0], results[2][0])
