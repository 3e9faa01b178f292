"""Constraints: how far steps go, where episodes end, and what they cost, whatever the policy."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.process import budgets
from pruning_env.process.actions import make_action
from pruning_env.process.budgets import Budget, parse_budget, register_budget
from pruning_env.process.constraints import Constraint, StepPath, constraint_names, make_constraint
from pruning_env.process.dynamics import PruningDynamics
from tests.helpers.small import small_dynamics, small_evaluator

EVALUATOR = small_evaluator()
GROUPS = len(EVALUATOR.graph.groups)
ZERO = np.zeros(GROUPS)

actions = st.lists(st.floats(-1, 1), min_size=GROUPS, max_size=GROUPS).map(np.array)
BUDGETS: list[dict[str, float]] = [
    {"params": 0.3},
    {"macs": 0.2},
    {"params": 0.5, "macs": 0.3},
    {"weights": 0.3},
    {"macs": 0.6, "weights": 0.4},
]
KINDS = ["distribution", "ratio"]


def weights_of(model):
    return float(sum(p.numel() for p in model.parameters()))


@pytest.fixture(autouse=True)
def weights_budget(monkeypatch):
    """A black box, `weights`, that is what `params` is."""
    monkeypatch.setattr(budgets, "_MEASURED", dict(budgets._MEASURED))
    register_budget("weights", weights_of)


def make(
    budget: dict[str, float] | None = None,
    action: str = "distribution",
    evaluator: Evaluator = EVALUATOR,
    **options: Any,
) -> PruningDynamics:
    graph = evaluator.graph
    kind = make_action(action, graph.sizes, 3.0)
    return PruningDynamics(graph, evaluator, parse_budget(budget), kind, **options)


def episode(dynamics, policy):
    """All transitions of the episode in which `policy(dynamics, state)` chooses the actions."""
    steps, state = [], dynamics.initial()
    while not dynamics.terminal(state):
        steps.append(dynamics.transition(state, policy(dynamics, state)))
        state = steps[-1].state
        assert len(steps) < 100
    return steps


def constant(value):
    return lambda dynamics, state: np.full(GROUPS, float(value))


def at_random(seed):
    rng = np.random.default_rng(seed)
    return lambda dynamics, state: rng.uniform(-1, 1, GROUPS)


def least_useful(dynamics, state):
    """The one-sided action after which most of the budgets is still used."""
    options = [2.0 * row - 1.0 for row in np.eye(GROUPS)] + [np.full(GROUPS, -1.0)]
    return max(options, key=lambda a: sum(dynamics.apply(state, a).usage))


POLICIES = {
    "random": at_random(0),
    "least useful": least_useful,
    "all -1": constant(-1),
    "all +1": constant(1),
    "zero": constant(0),
}


def one_unit_less(dynamics, before, after):
    """Whether a step from `before` that removes one unit less would meet all budgets."""
    units = dynamics.units
    left, given_before = units.left(before.counts), units.given(before.counts)
    taken = int((left - units.left(after.counts)).sum())
    split = dynamics.action.split(after.last_action, taken - 1, left, given_before)
    keep = dynamics.graph.keep_top(dynamics.rank, units.take(before.counts, split))
    usage = tuple(dynamics.usage_meter.ratio(i, keep) for i in range(len(dynamics.budgets)))
    return dynamics.feasible(dataclasses.replace(after, usage=usage))


# The search along an action


@given(st.sets(st.integers(1, 40)), st.integers(0, 39), st.integers(0, 40))
def test_what_is_found_meets_the_budgets_and_one_less_does_not_monotone_or_not(
    feasible, least, span
):
    most = min(least + span, 40)
    feasible -= {least}
    asked: list[int] = []

    def meets(units):
        asked.append(units)
        return units in feasible

    found = StepPath(1, 1, 40, meets).fewest(least, most)
    if most in feasible:
        assert found in feasible and found - 1 not in feasible and least < found <= most
    else:
        assert found == most
    assert len(asked) <= 7


# Steps that are bounded


@pytest.mark.parametrize("kind", KINDS)
def test_max_steps_ends_an_episode_that_is_not_feasible_yet_and_it_costs_its_excess(kind):
    dynamics = make({"params": 0.1}, kind, max_steps=2)
    steps = episode(dynamics, constant(-0.9))
    assert [step.terminated for step in steps] == [False, True]
    last = steps[-1].state
    assert not dynamics.feasible(last) and not dynamics.exhausted(last)
    assert steps[0].cost == 0.0 and steps[1].cost == last.params - 0.1
    with pytest.raises(ValueError, match=r"state is terminal.*max_steps=2"):
        dynamics.transition(last, ZERO)


def test_more_steps_than_an_episode_needs_change_nothing_but_what_comes_after_them():
    bounded, free = make({"params": 0.4}, max_steps=99), make({"params": 0.4})
    assert episode(bounded, at_random(1)) == episode(free, at_random(1))


@pytest.mark.parametrize("max_steps", [0, -1, 2.0, "3", True, np.nan])
@pytest.mark.parametrize("name", constraint_names())
def test_a_bad_max_steps_is_refused_by_name(name, max_steps):
    with pytest.raises(ValueError, match=r"max_steps=.*at least 1"):
        make_constraint(name, max_steps)


@pytest.mark.parametrize("name", ["wall", "cost"])
def test_a_horizon_must_be_given_where_it_is_needed(name):
    with pytest.raises(ValueError, match=f"max_steps=None.*{name}"):
        make(constraint=name)


@pytest.mark.parametrize("name", ["terminate", "project"])
def test_an_action_that_may_remove_nothing_needs_a_horizon(name):
    with pytest.raises(ValueError, match=r"max_steps=None.*ratio"):
        make(action="ratio", constraint=name)


def test_an_unknown_constraint_is_refused_by_name():
    with pytest.raises(ValueError, match=r"constraint='walls'.*cost, project, terminate, wall"):
        make_constraint("walls", 3)


# Project


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_projected_episode_ends_on_the_budget_and_one_unit_less_would_not(kind, budget, data):
    max_steps = data.draw(st.integers(1, 5))
    dynamics = make(budget, kind, constraint="project", max_steps=max_steps, channels_per_step=0.3)
    states = [dynamics.initial()]
    while not dynamics.terminal(states[-1]):
        states.append(dynamics.apply(states[-1], data.draw(actions)))
    assert len(states) <= max_steps + 1
    assert dynamics.feasible(states[-1])
    assert not one_unit_less(dynamics, *states[-2:])
    assert states[-1].requested == states[-1].removed


def test_with_one_step_all_that_must_go_is_split_by_one_action():
    dynamics = make({"params": 0.3}, constraint="project", max_steps=1)
    [step] = episode(dynamics, constant(0))
    assert step.terminated and step.cost == 0.0 and step.state.removed > 3 * dynamics.per_step
    even = dynamics.graph.sizes * step.state.counts.sum() / 24
    assert (np.abs(step.state.counts - even) < 1).all()


def test_projected_steps_are_ordinary_ones_until_the_last():
    projected = make({"params": 0.3}, constraint="project", channels_per_step=0.15)
    plain = make({"params": 0.3}, channels_per_step=0.15)
    mine, others = episode(projected, at_random(2)), episode(plain, at_random(2))
    assert len(mine) == len(others) > 2 and mine[:-1] == others[:-1]
    assert mine[-1].state.removed < others[-1].state.removed


def test_a_projected_budget_of_everything_still_takes_a_channel():
    [step] = episode(make({"params": 1.0}, constraint="project", max_steps=1), constant(0))
    assert step.state.removed == 1


@pytest.mark.parametrize("name", ["project", "wall"])
@pytest.mark.parametrize("budget", ["params", "weights"])
def test_a_limit_below_the_floors_is_refused_where_the_constraint_promises_to_meet_it(name, budget):
    with pytest.raises(ValueError, match=rf"budget\['{budget}'\]=0.001 cannot be met.* is at 0\."):
        make({"macs": 0.5, budget: 0.001}, constraint=name, max_steps=3)
    with pytest.raises(ValueError, match="cannot be met"):
        make({budget: 0.001}, max_steps=3).under(name)


@pytest.mark.parametrize("kind", KINDS)
def test_elsewhere_a_limit_below_the_floors_takes_everything_and_costs(kind):
    dynamics = make({"params": 0.001}, kind, max_steps=30)
    last = episode(dynamics, constant(1))[-1]
    assert dynamics.exhausted(last.state) and last.cost == last.state.params - 0.001


def test_the_search_for_a_measured_budget_builds_few_models():
    built: list[int] = []

    def counted(model):
        built.append(1)
        return weights_of(model)

    register_budget("counted", counted)
    dynamics = make({"counted": 0.3}, constraint="project", max_steps=1)
    built.clear()
    dynamics.apply(dynamics.initial(), ZERO)
    assert len(built) <= 1 + 5  # 21 units can go: everything, then log2(21)
    alone = len(built)
    both = make({"counted": 0.3, "params": 0.3}, constraint="project", max_steps=1)
    built.clear()
    both.apply(both.initial(), ZERO)
    assert len(built) < alone  # where `params` says no, nothing is built


# The wall


@pytest.mark.parametrize("budget", BUDGETS, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("max_steps", [1, 3, 8])
def test_the_wall_ends_feasible_within_its_steps_whatever_the_policy(
    budget, kind, policy, max_steps
):
    dynamics = make(budget, kind, constraint="wall", max_steps=max_steps)
    steps = episode(dynamics, POLICIES[policy])
    assert len(steps) <= max_steps
    assert dynamics.feasible(steps[-1].state) and steps[-1].cost == 0.0


@pytest.mark.parametrize("round_to", [2, 3])
def test_the_wall_holds_in_units_as_well(round_to):
    dynamics = make({"params": 0.4}, constraint="wall", max_steps=2, round_to=round_to)
    for policy in POLICIES.values():
        last = episode(dynamics, policy)[-1].state
        assert dynamics.feasible(last) and dynamics.units.reachable(last.counts)


def test_behind_the_wall_nan_is_refused_as_everywhere():
    dynamics = make(constraint="wall", max_steps=2)
    with pytest.raises(ValueError, match="action is NaN"):
        dynamics.apply(dynamics.initial(), np.full(GROUPS, np.nan))


def test_the_wall_takes_no_more_than_later_steps_of_the_usual_size_cannot_make_up_for():
    dynamics = make({"params": 0.3}, constraint="wall", max_steps=4, channels_per_step=0.1)
    needed = make({"params": 0.3}, constraint="project", max_steps=1)
    start = dynamics.initial()
    fewest = needed.apply(start, ZERO).removed
    steps = episode(dynamics, constant(0))
    assert dynamics.per_step == 2 and fewest > 4 * 2
    assert [step.state.removed for step in steps] == [fewest - 3 * 2, 2, 2, 2]


def test_where_actions_ask_for_enough_the_wall_is_not_felt():
    walled = make({"params": 0.4}, constraint="wall", max_steps=9, channels_per_step=0.2)
    assert episode(walled, constant(0)) == episode(
        make({"params": 0.4}, channels_per_step=0.2), constant(0)
    )


def test_lazy_fractions_meet_the_wall_in_the_last_step_only():
    dynamics = make({"params": 0.4}, "ratio", constraint="wall", max_steps=3)
    removed = [step.state.removed for step in episode(dynamics, constant(-1))]
    assert removed[:2] == [0, 0] and removed[2] > 0


# Cost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("budget", BUDGETS, ids=str)
def test_nothing_is_enforced_and_the_cost_is_the_largest_usage_over_its_limit(kind, budget):
    dynamics = make(budget, kind, constraint="cost", max_steps=3)
    for policy in POLICIES.values():
        steps = episode(dynamics, policy)
        last = steps[-1].state
        assert len(steps) == 3 or dynamics.exhausted(last)
        assert [step.cost for step in steps[:-1]] == [0.0] * (len(steps) - 1)
        limits = [b.limit for b in dynamics.budgets]
        assert steps[-1].cost == max(np.array(last.usage) / limits)
        assert (steps[-1].cost <= 1.0) == dynamics.feasible(last)


def test_a_cost_episode_goes_on_when_the_budgets_are_met():
    dynamics = make({"params": 0.9}, constraint="cost", max_steps=4)
    steps = episode(dynamics, constant(0))
    assert len(steps) == 4 and dynamics.feasible(steps[1].state)
    assert steps[-1].cost < 1.0


def test_the_sum_of_excesses_is_the_cost_everywhere_else():
    two = (Budget("params", 0.2), Budget("macs", 0.5))
    assert Constraint().cost((0.5, 0.6), two) == pytest.approx(0.4)
    assert Constraint().cost((0.1, 0.5), two) == 0.0
    assert make_constraint("cost", 1).cost((0.1, 0.6), two) == 1.2


# Black boxes


@pytest.mark.parametrize("name", constraint_names())
@pytest.mark.parametrize("kind", KINDS)
def test_a_black_box_that_equals_params_behaves_like_params_bit_for_bit(name, kind):
    options = {"constraint": name, "max_steps": 4, "channels_per_step": 0.2}
    for extra in ({}, {"macs": 0.5}):
        exact = make({"params": 0.3, **extra}, kind, **options)
        black = make({"weights": 0.3, **extra}, kind, **options)
        for seed in range(5):
            assert episode(black, at_random(seed)) == episode(exact, at_random(seed))


@pytest.mark.parametrize("name", ["project", "wall"])
def test_a_noisy_black_box_still_ends_with_the_numbers_it_was_judged_by(name):
    rng = np.random.default_rng(0)
    register_budget("noisy", lambda model: weights_of(model) * rng.uniform(0.95, 1.05))
    dynamics = make({"noisy": 0.4}, constraint=name, max_steps=3)
    for seed in range(5):
        last = episode(dynamics, at_random(seed))[-1]
        assert dynamics.feasible(last.state) and last.cost == 0.0


# Together with recovery and many states


@pytest.mark.parametrize("name", constraint_names())
def test_many_transitions_equal_single_ones_in_every_mode(name):
    options = {"constraint": name, "max_steps": 3, "channels_per_step": 0.2}
    dynamics = make({"params": 0.3}, **options)
    rng = np.random.default_rng(5)
    state = dynamics.initial()
    states = [state, dynamics.transition(state, rng.uniform(-1, 1, GROUPS)).state]
    plan = rng.uniform(-1, 1, (2, GROUPS))
    fresh = make({"params": 0.3}, evaluator=small_evaluator(), **options)
    assert fresh.transition_many(states, plan) == [
        dynamics.transition(s, a) for s, a in zip(states, plan, strict=True)
    ]


def test_the_default_is_to_terminate_without_a_last_step():
    assert small_dynamics(EVALUATOR).constraint.name == "terminate"
    assert small_dynamics(EVALUATOR).constraint.max_steps is None
