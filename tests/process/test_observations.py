"""An observation is a documented, bounded table of the state, row by row, then the globals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_env.evaluation.importance.scores import group_sensitivity
from pruning_env.process import budgets
from pruning_env.process.budgets import parse_budget, register_budget
from pruning_env.process.observations import (
    GLOBAL_FEATURES,
    GROUP_FEATURES,
    FlatObservation,
    make_observation,
)
from tests.helpers.small import small_dynamics, small_evaluator

EVALUATOR = small_evaluator()
BUDGET = {"params": 0.3, "macs": 0.6}
DYNAMICS = small_dynamics(EVALUATOR, BUDGET, channels_per_step=0.2)
FLAT = FlatObservation(
    EVALUATOR.graph, parse_budget(BUDGET), lambda: DYNAMICS.scores, DYNAMICS.units.floors
)
GROUPS, COLUMNS = len(EVALUATOR.graph.groups), len(GROUP_FEATURES)


@pytest.fixture(scope="module")
def state():
    return DYNAMICS.transition(DYNAMICS.initial(), np.array([0.5, -0.25, 1.0])).state


def column(name, observation):
    index = [feature.name for feature in GROUP_FEATURES].index(name)
    return observation[: GROUPS * COLUMNS].reshape(GROUPS, COLUMNS)[:, index].astype(float)


def entry(name, observation):
    return float(observation[FLAT.names.index(name)])


actions = st.lists(st.floats(-1, 1), min_size=GROUPS, max_size=GROUPS).map(np.array)


@given(st.lists(actions, max_size=7))
def test_every_observation_lies_in_the_space(plan):
    state = DYNAMICS.initial()
    for action in plan:
        state = DYNAMICS.apply(state, action)
    assert FLAT.space().contains(FLAT.observe(DYNAMICS.judge(state)))


def test_the_space_is_a_flat_bounded_float32_box_with_a_name_for_every_entry():
    space = FLAT.space()
    assert space.is_bounded() and space.dtype == np.float32
    assert space.shape == (GROUPS * COLUMNS + len(GLOBAL_FEATURES) - 1 + len(BUDGET),)
    assert len(FLAT.names) == len(set(FLAT.names)) == space.shape[0]


def test_bounds_are_those_of_the_feature_tables_entry_by_entry():
    ranges = {f.name: (f.low, f.high) for f in (*GROUP_FEATURES, *GLOBAL_FEATURES)}
    for name, low, high in zip(FLAT.names, FLAT.space().low, FLAT.space().high, strict=True):
        group_or_feature, _, feature = name.partition("/")
        key = "over_budget" if group_or_feature == "over_budget" else feature or group_or_feature
        assert (low, high) == ranges[key]


def test_group_rows_hold_what_their_names_say(state):
    graph, observation = EVALUATOR.graph, FLAT.observe(state)
    assert FLAT.names[:COLUMNS] == tuple(
        f"{graph.groups[0].name}/{feature.name}" for feature in GROUP_FEATURES
    )
    expected = {
        "sparsity": 1 - state.counts / graph.sizes,
        "sensitivity": group_sensitivity(graph, DYNAMICS.scores, state.keep),
        "width": state.counts / 10,
        "dense_width": graph.sizes / 10,
        "last_action": [0.5, -0.25, 1.0],
        "kernel": [g.kernel / 3 for g in graph.groups],
        "stride": [g.stride / 2 for g in graph.groups],
        "depth": [g.depth / max(h.depth for h in graph.groups) for g in graph.groups],
    }
    for name, values in expected.items():
        assert column(name, observation) == pytest.approx(np.array(values), abs=1e-6), name


@pytest.mark.parametrize("amount", ["params", "macs"])
def test_shares_are_what_shrinking_one_group_to_one_channel_really_saves(state, amount):
    graph = EVALUATOR.graph
    measure = getattr(graph, amount)
    saved = []
    for index in range(GROUPS):
        counts = state.counts.copy()
        counts[index] = 1
        small = graph.keep_top(DYNAMICS.rank, counts)
        saved.append(1 - measure(small) / measure(state.keep))
    shares = column(f"{amount}_share", FLAT.observe(state))
    assert shares == pytest.approx(np.array(saved), abs=1e-6)
    assert (shares > 0).all()


def test_globals_hold_what_their_names_say(state):
    observation = FLAT.observe(state)
    expected = {
        "accuracy": state.metrics.accuracy,
        "likelihood": math.exp(-state.metrics.loss),
        "params": state.params,
        "macs": state.macs,
        "progress": (24 - state.counts.sum()) / (24 - GROUPS),
        "over_budget/params": state.params - 0.3,
        "over_budget/macs": state.macs - 0.6,
    }
    assert FLAT.names[GROUPS * COLUMNS :] == tuple(expected)
    for name, value in expected.items():
        assert entry(name, observation) == pytest.approx(value, abs=1e-6), name


def test_a_measured_budget_far_above_the_dense_network_is_clipped(monkeypatch):
    monkeypatch.setattr(budgets, "_MEASURED", dict(budgets._MEASURED))
    register_budget("worse", lambda model: 1e6 / sum(p.numel() for p in model.parameters()) ** 4)
    dynamics = small_dynamics(EVALUATOR, {"worse": 0.5}, channels_per_step=0.5)
    flat = FlatObservation(
        EVALUATOR.graph, dynamics.budgets, lambda: dynamics.scores, dynamics.units.floors
    )
    state = dynamics.transition(dynamics.initial(), np.zeros(GROUPS)).state
    assert state.usage[0] > 2
    observation = flat.observe(state)
    assert flat.space().contains(observation) and observation[-1] == 1


def test_each_call_returns_a_fresh_array(state):
    first = FLAT.observe(state)
    first[:] = 7
    assert FLAT.space().contains(FLAT.observe(state))


def test_a_space_handed_out_cannot_reach_the_next_one():
    FLAT.space().low[:] = -9
    assert FLAT.space().low.min() == -1


def test_a_state_that_is_not_judged_has_no_observation(state):
    with pytest.raises(ValueError, match="metrics=None"):
        FLAT.observe(DYNAMICS.apply(state, np.zeros(GROUPS)))


def test_an_unknown_observation_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"observation='table'.*dict, flat"):
        make_observation(
            "table",
            EVALUATOR.graph,
            DYNAMICS.budgets,
            lambda: DYNAMICS.scores,
            DYNAMICS.units.floors,
        )
