"""Rules of thumb: what each takes, how close to the budget it comes, and the best of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pruning_agents import agent_names, get_agent
from pruning_agents.baselines import RULES, best_of_rules, follow_rule, rule_actions
from pruning_agents.baselines.order import (
    cheapest_first,
    costs_of_scores,
    lowest_first,
    order_action,
)
from pruning_agents.baselines.rules import lamp_scores
from pruning_agents.search.rollout import finish
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.tabular.env import CNNPruneTabularEnv
from tests.helpers.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain
from tests.helpers.small import small_dynamics


@pytest.fixture(scope="module")
def graph() -> Any:
    return trace_chain()


def make(**arguments: Any) -> CNNPruneEnv:
    return CNNPruneEnv(
        val_images=40,
        recovery_images=40,
        importance_images=40,
        **{"constraint": "project", "max_steps": 1, "budget": {"macs": 0.5}, **arguments},
    )


@pytest.fixture(scope="module")
def digits() -> CNNPruneEnv:
    return make()


# From costs to an order


def test_one_threshold_takes_the_lowest_costs_of_all_groups() -> None:
    assert lowest_first([np.array([0.1, 0.5]), np.array([0.2, 0.3, 0.9])]).tolist() == [
        *(0, 1, 1, 0, 1)
    ]


def test_a_unit_costs_the_mean_score_of_its_channels() -> None:
    dynamics = small_dynamics(round_to=4)
    scores = np.arange(dynamics.graph.num_channels, dtype=np.float64)
    # Widths 6, 10 and 8: partial units of 2 go first, and the last unit of each stays.
    assert [each.tolist() for each in costs_of_scores(dynamics, scores)] == [
        [0.5],
        [6.5, 9.5],
        [17.5],
    ]


def test_at_equal_costs_the_knapsack_takes_what_saves_most() -> None:
    dynamics = small_dynamics(budget={"macs": 0.5})
    graph = dynamics.graph
    costs = [np.ones(size - 1) for size in graph.sizes]
    by_macs = cheapest_first(dynamics, costs)
    less = graph.sizes - np.eye(len(graph.groups), dtype=np.int64)
    assert by_macs[0] == np.argmin(graph.macs_at(less))
    by_params = cheapest_first(small_dynamics(budget={"params": 0.5}), costs)
    assert by_params[0] == np.argmin(graph.params_at(less))
    assert by_macs.tolist() != by_params.tolist()


def test_a_budget_of_filters_has_savings_too() -> None:
    dynamics = small_dynamics(budget={"filters": 0.5})
    order = cheapest_first(dynamics, [np.ones(size - 1) for size in dynamics.graph.sizes])
    assert order[0] == 0  # a channel of the sum is two filters


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("constraint", ["project", "terminate"])
def test_an_episode_ends_where_the_order_says(
    digits: CNNPruneEnv, seed: int, constraint: str
) -> None:
    dynamics, sizes = digits.dynamics, digits.graph.sizes
    if constraint == "terminate":
        dynamics = make(constraint="terminate", max_steps=None).dynamics
    order = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes - 1))
    end = finish(dynamics, dynamics.initial(), order_action(dynamics, order))
    removed = sizes - end.state.counts
    wanted = np.bincount(order[: removed.sum()], minlength=len(sizes))
    assert np.abs(removed - wanted).max() <= 1
    assert end.feasible
    if constraint == "project":  # one unit less does not meet the budget
        shorter = sizes - np.bincount(order[: removed.sum() - 2], minlength=len(sizes))
        assert digits.graph.macs_at(shorter) > 0.5 * digits.graph.macs_at(sizes)


# The rules


@pytest.mark.parametrize("name", RULES)
def test_a_rule_meets_the_budget_as_closely_as_a_search(digits: CNNPruneEnv, name: str) -> None:
    env = digits.fork()
    before = env.evaluations
    result = follow_rule(name, env)
    assert result is not None and result.agent == name
    assert env.evaluations - before <= 1
    action = RULES[name].action(env.dynamics)
    assert result.state == finish(env.dynamics, env.dynamics.initial(), action).state
    assert 0.47 < result.state.usage[0] <= 0.5


@pytest.mark.parametrize("name", RULES)
def test_rules_prune_the_groups_that_there_are(name: str) -> None:
    env = make(groups="inner", budget={"macs": 0.7})
    result = follow_rule(name, env)
    assert result is not None and result.state.counts.shape == (3,)
    assert result.state.usage[0] <= 0.7


def test_lamp_is_a_square_over_those_no_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamics = small_dynamics()
    norms = np.tile([3.0, 1.0, 2.0, 4.0], 6)
    monkeypatch.setattr(dynamics.evaluator, "scores", lambda kind, rng: norms)
    scores = lamp_scores(dynamics)[:6]  # squares 9, 1, 4, 16, 9, 1
    np.testing.assert_allclose(
        scores, [9 / 34, 1 / 40, 4 / 38, 16 / 16, 9 / 25, 1 / 39], rtol=1e-12
    )


def test_the_maximum_rule_takes_what_costs_nothing_and_the_rest_alike(graph: Any) -> None:
    result = follow_rule("sensitivity-maximum", KnownOptimumEnv(graph, limit=0.4))
    assert result is not None
    others = np.delete(result.state.counts, FREE_GROUP)
    assert result.state.counts[FREE_GROUP] == 1 and np.ptp(others) <= 1


def test_curves_of_the_maximum_rule_are_no_evaluations(digits: CNNPruneEnv) -> None:
    before = digits.evaluations
    RULES["sensitivity-maximum"].action(digits.dynamics)
    assert digits.evaluations == before


def test_images_of_search_train_are_judged_as_those_of_search_val(digits: CNNPruneEnv) -> None:
    evaluator = digits.evaluator
    keep = digits.graph.random_keep(0.5, np.random.default_rng(0))
    (judged,) = evaluator.rehearse_many([keep])
    assert judged != evaluator.evaluate(keep)
    with pytest.raises(ValueError, match="keep has dtype"):
        evaluator.rehearse_many([np.ones(3)])


# The best of them


def test_the_best_of_rules_is_the_best_of_each_alone(graph: Any) -> None:
    alone = {name: follow_rule(name, KnownOptimumEnv(graph, limit=0.4)) for name in RULES}
    env = KnownOptimumEnv(graph, limit=0.4)
    best = best_of_rules(env, 100)
    assert best is not None
    assert best.accuracy == max(each.accuracy for each in alone.values() if each)
    assert best.evaluations == env.evaluations <= len(RULES)


def test_with_one_evaluation_the_best_of_rules_is_the_first(graph: Any) -> None:
    env = KnownOptimumEnv(graph)
    assert best_of_rules(env, 1) is not None and env.evaluations == 1


def test_the_table_has_an_answer_for_some() -> None:
    env = CNNPruneTabularEnv()
    assert set(rule_actions(env.dynamics)) == {
        *("uniform", "global-taylor", "global-taylor-normalised", "global-taylor-per-saving")
    }
    assert best_of_rules(env, 20) is not None
    with pytest.raises(ValueError, match="make CNNPrune-v0"):
        follow_rule("sensitivity-maximum", env)


def test_another_kind_of_action_is_refused_rather_than_left_out() -> None:
    env = make(action="ratio")
    with pytest.raises(ValueError, match="env must be made with action='distribution'"):
        best_of_rules(env, 20)
    assert follow_rule("uniform", env) is not None


def test_rules_are_registered_before_the_best_of_them() -> None:
    names = agent_names()
    assert set(RULES) == set(names[: names.index("best-of-rules")])
    assert not any(get_agent(name).seeded for name in (*RULES, "best-of-rules"))
