"""`action="layerwise"`: one group per step, in order, and what the constraints make of it."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.actions import LayerwiseAction, RatioAction, make_action
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.tabular.env import CNNPruneTabularEnv
from tests.helpers.small import small_evaluator

EVALUATOR = small_evaluator()
GROUPS = len(EVALUATOR.graph.groups)


def make(limit: float = 0.4, **options: Any) -> PruningDynamics:
    graph = EVALUATOR.graph
    return PruningDynamics(
        graph,
        EVALUATOR,
        parse_budget({"params": limit}),
        make_action("layerwise", graph.sizes, 3.0),
        max_steps=GROUPS,
        **options,
    )


def episode(dynamics, numbers):
    """The states of an episode, the dense network first."""
    states = [dynamics.initial()]
    for number in numbers:
        if dynamics.terminal(states[-1]):
            break
        states.append(dynamics.transition(states[-1], np.array([number])).state)
    return states


def test_each_step_takes_from_its_own_group_what_ratio_would_take():
    dynamics = make(constraint="cost")
    ratio = RatioAction(EVALUATOR.graph.sizes)
    states = episode(dynamics, [0.3, -1.0, 0.9])
    assert len(states) == GROUPS + 1
    for turn, (before, after, number) in enumerate(
        zip(states, states[1:], (0.3, -1.0, 0.9), strict=False)
    ):
        lost = before.counts - after.counts
        assert not np.delete(lost, turn).any()
        alone = np.where(np.arange(GROUPS) == turn, before.counts - 1, 0)
        assert lost[turn] == ratio.asks(np.full(GROUPS, number), 1, alone)
        assert after.last_action[turn] == number
    assert dynamics.terminal(states[-1])


@pytest.mark.parametrize("limit", [0.15, 0.4, 0.8])
def test_behind_the_wall_an_episode_ends_feasible_whatever_is_asked(limit):
    dynamics = make(limit, constraint="wall")
    rng = np.random.default_rng(0)
    for numbers in [[-1.0] * GROUPS, [1.0] * GROUPS, *rng.uniform(-1, 1, (10, GROUPS))]:
        states = episode(dynamics, numbers)
        assert dynamics.feasible(states[-1])
        for turn, (before, after) in enumerate(itertools.pairwise(states)):
            assert not np.delete(before.counts - after.counts, turn).any()


def test_the_wall_takes_no_more_than_the_later_groups_could_not_make_up_for():
    dynamics = make(0.4, constraint="wall")
    graph, units = EVALUATOR.graph, dynamics.units
    dense = graph.params(graph.full())
    states = episode(dynamics, [-1.0] * GROUPS)
    forced = 0
    for turn, (before, after) in enumerate(itertools.pairwise(states)):
        lost = int(before.counts[turn] - after.counts[turn])
        if not lost:
            continue
        forced += 1
        lenient = after.counts.copy()
        lenient[turn] += 1
        lenient[turn + 1 :] = units.floors[turn + 1 :]
        assert graph.params_at(lenient) / dense > 0.4
    assert forced


def test_the_action_space_is_one_number_and_bad_ones_are_refused():
    kind = LayerwiseAction(np.array([4, 8, 2]))
    assert kind.space() == gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    assert kind.parse([0.5], 1).tolist() == [-1.0, 0.5, -1.0]
    assert kind.parse_many([[0.5], [2.0]], np.array([0, 2])).tolist() == [
        [0.5, -1.0, -1.0],
        [-1.0, -1.0, 1.0],
    ]
    with pytest.raises(ValueError, match="1 given for 2 states"):
        kind.parse_many([[0.5]], np.array([0, 1]))
    for bad in ([0.1, 0.2, 0.3], [np.nan], "no"):
        with pytest.raises(ValueError, match="action"):
            kind.parse(bad, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": None}, "max_steps=None"),
        ({"max_steps": 5}, "give 6, the number of groups"),
        ({"max_steps": 6, "constraint": "project"}, "'project' is not allowed"),
    ],
)
def test_what_does_not_fit_the_turns_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CNNPruneTabularEnv(action="layerwise", **options)


@pytest.mark.parametrize("make_env", [CNNPruneEnv, CNNPruneTabularEnv])
def test_the_observation_marks_the_group_that_is_next(make_env):
    env = make_env(action="layerwise", max_steps=6, constraint="cost", reward="final")
    marks = [place for place, name in enumerate(env.observation_names) if name.endswith("/turn")]
    assert len(marks) == 6
    seen, _ = env.reset(seed=0)
    for turn in range(6):
        assert seen[marks].tolist() == [float(place == turn) for place in range(6)]
        seen, *_ = env.step(np.array([-0.5], np.float32))
    assert not seen[marks].any()


@pytest.mark.parametrize("options", [{"action": "ratio"}, {"action": "layerwise"}])
def test_regret_has_the_same_anchors_for_all_kinds_of_actions(options):
    env = CNNPruneTabularEnv(max_steps=6, constraint="cost", **options)
    floors = env.dynamics.units.floors
    assert env.regret(floors) == CNNPruneTabularEnv().regret(floors)
