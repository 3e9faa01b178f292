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


def test_accuracy_change_is_in_fractions_of_the_images(evaluator):
    before, step = one_step(evaluator, "accuracy_change")
    change = step.state.metrics.accuracy - before.metrics.accuracy
    assert step.reward == pytest.approx(change) and change != 0


def test_accuracy_changes_of_an_episode_add_up_to_the_whole_change(evaluator):
    dynamics = small_dynamics(evaluator)
    start = state = dynamics.initial()
    total = 0.0
    while not dynamics.terminal(state):
        step = dynamics.transition(state, np.zeros(3))
        state, total = step.state, total + step.reward
    assert state.metrics and start.metrics
    assert total == pytest.approx(state.metrics.accuracy - start.metrics.accuracy)


def test_accuracy_is_the_accuracy_at_the_end(evaluator):
    _, step = one_step(evaluator, "accuracy")
    assert step.terminated and step.reward == step.state.metrics.accuracy


PUBLISHED = [{}, {"alpha": 0.25}, {"beta": 0.25}, {"alpha": 0.1, "beta": 0.3}]


@pytest.mark.parametrize("arguments", PUBLISHED)
def test_rl_pruner_pays_accuracy_and_a_share_of_each_cut_however_many_steps(evaluator, arguments):
    reward = get_reward("rl_pruner", arguments)
    dynamics = small_dynamics(evaluator, reward=reward, channels_per_step=0.1)
    start = state = dynamics.initial()
    total, steps = 0.0, 0
    while not dynamics.terminal(state):
        step = dynamics.transition(state, np.array([0.3, 0.0, -0.3]))
        state, total, steps = step.state, total + step.reward, steps + 1
    alpha, beta = (arguments.get(name, 0.0) for name in ("alpha", "beta"))
    change = state.latest.accuracy - start.latest.accuracy
    cuts = alpha * (1 - state.macs) + beta * (1 - state.params)
    assert total == pytest.approx(change + cuts) and steps > 2
    # A search's measure is the same, whatever the way there.
    assert dynamics.worth([state]) == pytest.approx([total])


@pytest.mark.parametrize("arguments", [{"gamma": 0.1}, {"alpha": math.nan}, {"alpha": "0.1"}, [1]])
def test_an_argument_that_a_reward_does_not_have_is_named(arguments):
    with pytest.raises(ValueError, match=r"reward_arguments.* is not allowed"):
        get_reward("rl_pruner", arguments)
    with pytest.raises(ValueError, match=r"reward='final' has no arguments"):
        get_reward("final", {"alpha": 0.1})


def test_amc_is_minus_the_error_times_the_log_of_the_macs(evaluator):
    _, step = one_step(evaluator, "amc")
    graph = evaluator.graph
    share = math.log(graph.macs(step.state.keep)) / math.log(graph.macs(graph.full()))
    assert step.reward == pytest.approx(-(1 - step.state.metrics.accuracy) * share)


@pytest.mark.parametrize("name", reward_names())
def test_a_state_on_the_way_is_worth_what_ending_there_would_earn(evaluator, name):
    dynamics = small_dynamics(evaluator, reward=get_reward(name), channels_per_step=0.1)
    on_the_way = dynamics.apply(dynamics.initial(), np.zeros(3))
    assert not dynamics.terminal(on_the_way) and on_the_way.metrics is None
    ending = small_dynamics(
        evaluator, {"params": on_the_way.params}, reward=get_reward(name), channels_per_step=0.1
    )
    end = ending.transition(ending.initial(), np.zeros(3))
    assert end.terminated and end.feasible
    assert dynamics.worth([on_the_way, on_the_way]) == [end.reward] * 2


def test_what_is_known_at_the_start_of_an_episode_lasts_over_lazy_steps(evaluator):
    dynamics = small_dynamics(evaluator, reward=get_reward("final"), channels_per_step=0.05)
    start = dynamics.judge(dynamics.apply(dynamics.initial(), np.array([1.0, 0.0, -1.0])))
    assert start.metrics is not None and start.metrics != evaluator.dense
    first = dynamics.transition(start, np.zeros(3)).state
    second = dynamics.transition(first, np.zeros(3)).state
    assert not dynamics.terminal(second) and second.metrics is None
    assert first.latest == second.latest == start.metrics


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
    terms = {"end": 1.0, "left": float(step.state.counts.sum()), "unmet": 0.0}
    assert step.reward_terms == terms
    assert "ends" in reward_names()


@pytest.mark.parametrize("unmet", [0.0, 1.0, 100.0])
def test_a_registered_price_of_an_unmet_budget_is_paid_at_the_end_and_no_sooner(
    evaluator, registry, unmet
):
    @register_reward("nothing", unmet=unmet)
    def nothing(outcome):
        return {}

    dynamics = small_dynamics(
        evaluator,
        {"params": 0.01},
        reward=get_reward("nothing"),
        reward_scale=0.5,
        channels_per_step=0.1,
        max_steps=2,
    )
    first = dynamics.transition(dynamics.initial(), np.zeros(3))
    assert first.reward == 0.0 and not first.terminated
    last = dynamics.transition(first.state, np.zeros(3))
    assert last.terminated
    assert last.reward == pytest.approx(-0.5 * unmet * (1 + last.state.params - 0.01))


@pytest.mark.parametrize("unmet", [-1.0, math.inf, None])
def test_a_price_that_is_no_number_of_at_least_0_is_refused(unmet):
    with pytest.raises(ValueError, match="unmet="):
        register_reward("priced", unmet=unmet)


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
