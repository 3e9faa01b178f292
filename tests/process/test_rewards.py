"""A reward is a sum of named terms, read off one step."""

import math

import numpy as np
import pytest

from pruning_env.process import rewards
from pruning_env.process.rewards import get_reward, register_reward, reward_names
from tests.helpers.small import small_dynamics, small_evaluator


@pytest.fixture(scope="module")
def evaluator():
    return small_evaluator()


def one_step(evaluator, reward, scale=1.0):
    dynamics = small_dynamics(
        evaluator, reward=get_reward(reward), reward_scale=scale, channels_per_step=0.6
    )
    before = dynamics.initial()
    return before, dynamics.transition(before, np.array([1.0, 0.0, -1.0]))


@pytest.mark.parametrize("name", reward_names())
def test_every_reward_is_the_exact_sum_of_its_finite_terms(evaluator, name):
    _, step = one_step(evaluator, name)
    assert type(step.reward) is float and math.isfinite(step.reward)
    assert step.reward == sum(step.reward_terms.values())
    assert all(type(term) is float for term in step.reward_terms.values())


@pytest.mark.parametrize("name", reward_names())
def test_the_scale_multiplies_every_term(evaluator, name):
    _, plain = one_step(evaluator, name)
    _, scaled = one_step(evaluator, name, scale=0.5)
    assert scaled.reward_terms == {k: 0.5 * v for k, v in plain.reward_terms.items()}


def test_accuracy_change_is_in_percentage_points(evaluator):
    before, step = one_step(evaluator, "accuracy_change")
    change = step.state.metrics.accuracy - before.metrics.accuracy
    assert step.reward == pytest.approx(100 * change) and change != 0


def test_accuracy_changes_of_an_episode_add_up_to_the_whole_change(evaluator):
    dynamics = small_dynamics(evaluator)
    start = state = dynamics.initial()
    total = 0.0
    while not dynamics.terminal(state):
        step = dynamics.transition(state, np.zeros(3))
        state, total = step.state, total + step.reward
    assert state.metrics and start.metrics
    assert total == pytest.approx(100 * (state.metrics.accuracy - start.metrics.accuracy))


def test_accuracy_is_the_accuracy_after_the_step(evaluator):
    _, step = one_step(evaluator, "accuracy")
    assert step.reward == step.state.metrics.accuracy


def test_rl_pruner_adds_a_quarter_of_each_cut(evaluator):
    _, step = one_step(evaluator, "rl_pruner")
    state = step.state
    assert step.reward_terms == {
        "accuracy": state.metrics.accuracy,
        "macs_cut": 0.25 * (1 - state.macs),
        "params_cut": 0.25 * (1 - state.params),
    }


def test_amc_is_minus_the_error_times_the_log_of_the_macs(evaluator):
    _, step = one_step(evaluator, "amc")
    macs = evaluator.graph.macs(step.state.keep)
    assert step.reward == pytest.approx(-(1 - step.state.metrics.accuracy) * math.log(macs))


@pytest.fixture
def registry(monkeypatch):
    """Registrations are undone after the test."""
    monkeypatch.setattr(rewards, "_REWARDS", dict(rewards._REWARDS))


def test_a_registered_function_sees_the_step_and_its_end(evaluator, registry):
    @register_reward("ends")
    def ends(outcome):
        return {"end": float(outcome.terminated), "left": float(outcome.state.counts.sum())}

    dynamics = small_dynamics(evaluator, {"params": 1.0}, reward=get_reward("ends"))
    step = dynamics.transition(dynamics.initial(), np.zeros(3))
    assert step.reward_terms == {"end": 1.0, "left": float(step.state.counts.sum())}
    assert "ends" in reward_names()


@pytest.mark.parametrize("returned", [{"x": math.nan}, {"x": math.inf}, 1.0, None])
def test_a_function_that_returns_no_finite_terms_is_named(evaluator, returned):
    def broken(outcome):
        return returned

    dynamics = small_dynamics(evaluator, reward=broken)
    with pytest.raises(ValueError, match=r"reward function .*broken.* returned"):
        dynamics.transition(dynamics.initial(), np.zeros(3))


@pytest.mark.parametrize("name", ["accuracy", "", None])
def test_a_taken_or_empty_name_cannot_be_registered(name):
    with pytest.raises(ValueError, match="name="):
        register_reward(name)


def test_an_unknown_reward_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"reward='acc' is unknown; allowed: accuracy, .*amc"):
        get_reward("acc")
