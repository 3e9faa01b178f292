"""The process: what a step removes, when it ends, and what a state is."""

import copy
import dataclasses
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.small import count_calls, small_dynamics, small_evaluator, small_splits

# One evaluator and one process for all properties: neither holds an episode.
EVALUATOR = small_evaluator()
DYNAMICS = small_dynamics(EVALUATOR, {"params": 0.2}, channels_per_step=0.1)
GROUPS = len(EVALUATOR.graph.groups)

actions = st.lists(st.floats(-1, 1), min_size=GROUPS, max_size=GROUPS).map(np.array)


def walk(dynamics, plan):
    """The unjudged states along a plan of actions, the dense network first."""
    states = [dynamics.initial()]
    for action in plan:
        states.append(dynamics.apply(states[-1], action))
    return states


def finish(dynamics, action):
    """All transitions of the episode that repeats one action."""
    steps, state = [], dynamics.initial()
    while not dynamics.terminal(state):
        steps.append(dynamics.transition(state, action))
        state = steps[-1].state
    return steps


@pytest.fixture
def state():
    return DYNAMICS.judge(walk(DYNAMICS, [np.array([1.0, 0.0, -1.0])])[-1])


def test_an_episode_starts_at_the_dense_network_judged_without_an_evaluation():
    evaluator = small_evaluator()
    start = small_dynamics(evaluator).initial()
    assert start.keep.all() and start.step == start.requested == start.removed == 0
    assert start.params == start.macs == 1.0 and start.usage == (1.0,)
    assert start.metrics == evaluator.dense and evaluator.evaluations == 0


@given(st.lists(actions, min_size=1, max_size=14))
def test_every_step_removes_exactly_what_it_announced_or_everything_there_was(plan):
    states = walk(DYNAMICS, plan)
    for before, after in pairwise(states):
        gone = before.counts.sum() - after.counts.sum()
        assert after.removed == gone == before.keep.sum() - after.keep.sum()
        assert after.requested == DYNAMICS.per_step
        assert after.removed == after.requested or DYNAMICS.exhausted(after)
        assert after.step == before.step + 1


@given(st.lists(actions, min_size=1, max_size=14))
def test_channels_never_come_back_and_no_group_loses_its_last(plan):
    states = walk(DYNAMICS, plan)
    for before, after in pairwise(states):
        assert not (after.keep & ~before.keep).any()
        assert (after.counts >= 1).all()


@given(st.lists(actions, min_size=1, max_size=8))
def test_the_mask_is_a_function_of_the_counts_and_the_ratios_are_the_graphs(plan):
    graph, state = DYNAMICS.graph, walk(DYNAMICS, plan)[-1]
    assert np.array_equal(state.counts, graph.counts(state.keep))
    assert np.array_equal(state.keep, graph.keep_top(DYNAMICS.rank, state.counts))
    assert state.params == graph.params(state.keep) / graph.params(graph.full())
    assert state.macs == graph.macs(state.keep) / graph.macs(graph.full())
    assert state.usage == (state.params,)


def test_the_least_important_channels_of_a_group_go_first():
    state = walk(DYNAMICS, [np.zeros(GROUPS)] * 5)[-1]
    for group in DYNAMICS.graph.groups:
        mine = slice(group.start, group.start + group.size)
        scores, keep = DYNAMICS.scores[mine], state.keep[mine]
        assert (~keep).any() and scores[keep].min() >= scores[~keep].max()


def test_the_action_prefers_the_group_it_points_at():
    one, other = (walk(DYNAMICS, [a])[-1] for a in (np.eye(GROUPS)[0], np.eye(GROUPS)[1]))
    assert one.counts[0] < other.counts[0] and one.counts[1] > other.counts[1]


def test_repeating_the_zero_action_prunes_all_groups_evenly_even_one_channel_at_a_time():
    dynamics = small_dynamics(EVALUATOR, channels_per_step=0.001)
    for state in walk(dynamics, [np.zeros(GROUPS)] * 18):
        even = dynamics.graph.sizes * state.counts.sum() / 24
        assert (np.abs(state.counts - even) < 1).all()


def test_applying_evaluates_nothing_and_judging_evaluates_once():
    evaluator = small_evaluator()
    dynamics = small_dynamics(evaluator)
    state = dynamics.apply(dynamics.initial(), np.zeros(GROUPS))
    assert state.metrics is None and evaluator.evaluations == 0
    judged = dynamics.judge(state)
    assert judged.metrics == evaluator.evaluate(state.keep) and evaluator.evaluations == 1
    assert dynamics.judge(judged) is judged


def test_a_transition_is_apply_and_judge_and_depends_on_nothing_else(state):
    action = np.array([-1.0, 0.5, 1.0])
    step = DYNAMICS.transition(state, action)
    assert step.state == DYNAMICS.judge(DYNAMICS.apply(state, action))
    fresh = small_dynamics(budget={"params": 0.2}, channels_per_step=0.1)
    assert fresh.transition(state, action) == step


def test_an_episode_ends_at_the_first_state_that_meets_all_budgets():
    dynamics = small_dynamics(EVALUATOR, {"params": 0.5, "macs": 0.4})
    steps = finish(dynamics, np.zeros(GROUPS))
    assert [step.terminated for step in steps] == [False] * (len(steps) - 1) + [True]
    assert dynamics.feasible(steps[-1].state) and not dynamics.feasible(steps[-2].state)
    assert steps[-1].state.params <= 0.5 and steps[-1].state.macs <= 0.4
    assert all(step.cost == 0.0 for step in steps)


def test_an_unreachable_budget_ends_exhausted_and_costs_its_excess_once():
    dynamics = small_dynamics(EVALUATOR, {"params": 0.001, "macs": 0.002}, channels_per_step=0.25)
    steps = finish(dynamics, np.zeros(GROUPS))
    last = steps[-1].state
    assert dynamics.exhausted(last) and not dynamics.feasible(last)
    assert last.removed < last.requested
    assert [step.cost for step in steps[:-1]] == [0.0] * (len(steps) - 1)
    assert steps[-1].cost == pytest.approx(last.params - 0.001 + last.macs - 0.002)


def test_a_budget_of_everything_still_takes_one_step():
    dynamics = small_dynamics(EVALUATOR, {"params": 1.0})
    assert not dynamics.terminal(dynamics.initial())
    assert len(finish(dynamics, np.zeros(GROUPS))) == 1


def test_a_terminal_state_has_no_successor():
    last = finish(DYNAMICS, np.zeros(GROUPS))[-1].state
    with pytest.raises(ValueError, match="state is terminal"):
        DYNAMICS.transition(last, np.zeros(GROUPS))


@pytest.mark.parametrize(("share", "channels"), [(0.001, 1), (0.05, 1), (0.1, 2), (1.0, 24)])
def test_a_step_announces_a_rounded_share_of_all_channels_and_at_least_one(share, channels):
    assert EVALUATOR.graph.num_channels == 24
    assert small_dynamics(EVALUATOR, channels_per_step=share).per_step == channels


def test_a_random_ranking_is_the_same_in_every_environment():
    first, second = (small_dynamics(importance="random") for _ in range(2))
    assert np.array_equal(first.rank, second.rank)
    assert not np.array_equal(first.rank, DYNAMICS.rank)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("channels_per_step", 0.0),
        ("channels_per_step", 1.01),
        ("channels_per_step", np.nan),
        ("channels_per_step", "all"),
        ("reward_scale", 0.0),
        ("reward_scale", -1.0),
        ("reward_scale", np.inf),
        ("reward_scale", np.nan),
        ("constraint", "wall"),
    ],
)
def test_a_bad_argument_is_refused_by_name(argument, value):
    with pytest.raises(ValueError, match=f"{argument}="):
        small_dynamics(EVALUATOR, **{argument: value})


def test_a_network_whose_groups_are_all_at_their_floor_is_refused():
    thin = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)).eval()
    graph = ChannelGraph.trace(thin, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="no removable channel"):
        small_dynamics(Evaluator(thin, graph, small_splits()))


def test_a_state_cannot_be_changed(state):
    for name in ("keep", "counts", "last_action"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(state, name)[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 5


def test_a_state_owns_its_arrays(state):
    counts = state.counts.copy()
    mine = dataclasses.replace(state, counts=counts)
    counts[0] = 0
    assert mine == state


@pytest.mark.parametrize(
    "clone", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_a_copied_or_pickled_state_is_equal_hashes_alike_and_stays_locked(state, clone):
    twin = clone(state)
    assert twin == state and hash(twin) == hash(state)
    assert not (twin.keep.flags.writeable or twin.counts.flags.writeable)
    assert not twin.last_action.flags.writeable


@pytest.mark.parametrize(
    "change", [{"step": 9}, {"metrics": None}, {"usage": (0.5,)}, {"removed": 0}]
)
def test_states_that_differ_in_anything_are_unequal(state, change):
    assert dataclasses.replace(state, **change) != state
    assert state != "state"


def test_a_state_of_this_process_passes_the_check_and_comes_back_judged(state):
    assert DYNAMICS.check(state) is state
    assert DYNAMICS.check(dataclasses.replace(state, metrics=None)) == state


def test_a_state_of_something_else_is_refused_with_the_reason(state):
    def refused(foreign, reason):
        with pytest.raises(ValueError, match=reason):
            DYNAMICS.check(foreign)

    refused({"keep": state.keep}, "give a PruningState")
    refused(dataclasses.replace(state, counts=state.counts[:2]), "another network")
    refused(dataclasses.replace(state, counts=state.counts * 0), r"state.counts=\[0, 0, 0\]")
    refused(dataclasses.replace(state, counts=DYNAMICS.graph.sizes + 1), r"state\.counts=")
    refused(dataclasses.replace(state, keep=DYNAMICS.graph.full()), "state.keep is not what")
    refused(dataclasses.replace(state, usage=(0.5, 0.5)), "has 2 entries")
    refused(dataclasses.replace(state, usage=(state.macs,)), "not the usage of")
    other = small_dynamics(EVALUATOR, importance="random")
    refused(other.apply(other.initial(), np.eye(GROUPS)[1]), "ranking")


# Many transitions at once


def spread(count, seed=0):
    """Judged states of several depths, with an action for each."""
    rng = np.random.default_rng(seed)
    plan = rng.uniform(-1, 1, (6, GROUPS))
    states = [DYNAMICS.judge(state) for state in walk(DYNAMICS, plan)]
    states = [state for state in states if not DYNAMICS.terminal(state)]
    return (
        [states[index] for index in rng.integers(len(states), size=count)],
        rng.uniform(-1.2, 1.2, (count, GROUPS)),
    )


def test_many_transitions_equal_as_many_single_ones_bit_for_bit_and_in_order():
    states, actions = spread(20)
    states += states[:5] + states[:1]
    actions = np.concatenate([actions, actions[:5], actions[1:2]])
    alone = small_dynamics(budget={"params": 0.2}, channels_per_step=0.1)
    expected = [alone.transition(s, a) for s, a in zip(states, actions, strict=True)]
    together = small_dynamics(budget={"params": 0.2}, channels_per_step=0.1)
    assert together.transition_many(states, actions) == expected
    assert together.evaluator.evaluations == alone.evaluator.evaluations
    assert together.evaluator.cache_hits == alone.evaluator.cache_hits > 0


def test_many_transitions_judge_all_new_masks_in_one_call_of_the_evaluator(monkeypatch):
    evaluator = small_evaluator()
    dynamics = small_dynamics(evaluator, {"params": 0.2}, channels_per_step=0.1)
    states, actions = spread(8)
    unjudged = [dataclasses.replace(state, metrics=None) for state in states]
    judged = count_calls(monkeypatch, evaluator)
    assert dynamics.transition_many(unjudged, actions) == DYNAMICS.transition_many(states, actions)
    assert judged == [8 + sum(not state.keep.all() for state in states)]


def test_no_states_have_no_transitions_and_cost_nothing():
    before = EVALUATOR.evaluations
    assert DYNAMICS.transition_many([], []) == []
    assert EVALUATOR.evaluations == before


def test_many_actions_in_one_state_are_judged_like_steps_from_it(state):
    actions = np.eye(GROUPS)
    steps = DYNAMICS.transition_many([state] * GROUPS, actions)
    assert steps == [DYNAMICS.transition(state, action) for action in actions]


def test_a_bad_action_or_a_terminal_state_among_many_is_named_by_its_slot_and_nothing_is_judged():
    states, actions = spread(4)
    last = finish(DYNAMICS, np.zeros(GROUPS))[-1].state
    fresh = small_dynamics(budget={"params": 0.2}, channels_per_step=0.1)
    bad = [*actions[:2], np.full(GROUPS, np.nan), actions[3]]
    with pytest.raises(ValueError, match="slot 2: action is NaN"):
        fresh.transition_many(states, bad)
    with pytest.raises(ValueError, match="slot 1: state is terminal"):
        fresh.transition_many([states[0], last, *states[2:]], actions)
    with pytest.raises(ValueError, match="actions: 3 given for 4 states"):
        fresh.transition_many(states, actions[:3])
    assert fresh.evaluator.evaluations == 0


def test_a_single_transitions_error_names_no_slot():
    with pytest.raises(ValueError, match=r"^action is NaN"):
        DYNAMICS.transition(DYNAMICS.initial(), np.full(GROUPS, np.nan))
