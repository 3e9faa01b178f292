"""Looking ahead on a network whose accuracy is a formula."""

import numpy as np
import pytest

from pruning_agents.search.rollout import approach, feasible_end, finish
from pruning_env.evaluation.recovery.finetuning import FineTuning
from tests.helpers.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain
from tests.helpers.small import small_dynamics, small_evaluator


@pytest.fixture(scope="module")
def graph():
    return trace_chain()


@pytest.fixture
def env(graph):
    return KnownOptimumEnv(graph, limit=0.5)


ACTION = np.array([0.2, -0.3, 0.4, 0.0])


def _step_to_the_end(env):
    env.reset()
    rewards, done = [], False
    while not done:
        _, reward, done, _, _ = env.step(ACTION)
        rewards.append(reward)
    return rewards, env.state()


def test_finishing_ends_where_stepping_ends_at_the_price_of_one_evaluation(env):
    end = finish(env.dynamics, env.dynamics.initial(), ACTION)
    assert env.evaluator.evaluations == 1
    rewards, last = _step_to_the_end(env)
    assert len(rewards) > 2
    assert end.terminated and end.state == last


def test_the_reward_of_a_stretch_is_the_sum_of_the_rewards_on_the_way(env):
    end = finish(env.dynamics, env.dynamics.initial(), ACTION)
    rewards, _ = _step_to_the_end(env)
    assert end.reward == pytest.approx(sum(rewards))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_bounded_look_ahead_covers_that_many_steps(env, steps):
    start = env.dynamics.initial()
    ahead = approach(env.dynamics, start, ACTION, steps)
    assert ahead.step == steps - 1
    assert env.dynamics.transition(ahead, ACTION).state.step == steps
    assert env.evaluator.evaluations == 1


def test_a_look_ahead_longer_than_the_episode_stops_at_its_end(env):
    start = env.dynamics.initial()
    assert approach(env.dynamics, start, ACTION, 99) == approach(env.dynamics, start, ACTION)


def test_only_an_end_within_the_budget_counts_as_feasible(graph):
    # One channel left in each group is still above this budget.
    hopeless = KnownOptimumEnv(graph, limit=0.001)
    end = finish(hopeless.dynamics, hopeless.dynamics.initial(), ACTION)
    assert end.terminated and not feasible_end(end)

    possible = KnownOptimumEnv(graph, limit=0.5)
    start = possible.dynamics.initial()
    assert feasible_end(finish(possible.dynamics, start, ACTION))
    assert not feasible_end(possible.dynamics.transition(start, ACTION))


def test_taking_everything_from_the_free_group_costs_no_accuracy(graph):
    env = KnownOptimumEnv(graph)
    action = np.full(4, -1.0)
    action[FREE_GROUP] = 1.0
    best, uniform = (
        env.evaluator.evaluate(finish(env.dynamics, env.dynamics.initial(), each).state.keep)
        for each in (action, np.zeros(4))
    )
    assert best.accuracy > 0.98 > 0.92 > uniform.accuracy


def test_a_feasible_end_asks_for_the_budgets_and_not_for_the_cost():
    # By constraint="cost", what meets the budgets still has a cost: usage / limit.
    for limit, met in ((0.9, True), (0.1, False)):
        dynamics = small_dynamics(budget={"params": limit}, constraint="cost", max_steps=5)
        end = finish(dynamics, dynamics.initial(), np.zeros(3))
        assert end.terminated and end.cost > 0 and end.state.step == 5
        assert feasible_end(end) is met


def test_a_look_ahead_leaves_training_to_its_end():
    evaluator = small_evaluator(recovery="finetune", finetuning=FineTuning(steps=1))
    dynamics = small_dynamics(evaluator, {"params": 0.5}, channels_per_step=0.1)
    start = dynamics.initial()
    ahead = dynamics.check(approach(dynamics, start, np.zeros(3)))
    assert ahead.metrics is None and ahead.latest == start.metrics
    end = dynamics.transition(ahead, np.zeros(3))
    assert end.terminated and evaluator.evaluations == 1
    assert end.reward == 100 * (end.state.latest.accuracy - start.latest.accuracy)
