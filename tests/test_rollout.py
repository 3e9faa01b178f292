"""Looking ahead on a network whose accuracy is a formula."""

import numpy as np
import pytest

from agents.rollout import approach, feasible_end, finish
from tests.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain


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
