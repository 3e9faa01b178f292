"""`python -m benchmarks state`: classes of policies contain one another, and are what they say."""

import functools
import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.state.command import LIMIT, scenarios
from benchmarks.state.policies import Judge, bound, constant, schedule, state_dependent
from benchmarks.state.world import Case, World


@pytest.fixture(scope="module")
def world():
    return World(channels_per_step=0.1)


@pytest.fixture(scope="module")
def judges(world):
    return {name: Judge(world, cases) for name, cases in scenarios(world, seed=0).items()}


def test_a_class_that_contains_another_is_no_worse(judges):
    for judge in judges.values():
        fixed, best, limit = (each(judge) for each in (constant, state_dependent, bound))
        assert fixed.exact and best.exact and limit.exact
        for by_progress in (False, True):
            found = schedule(judge, by_progress, np.random.default_rng(0))
            assert not found.exact
            assert limit.regret <= best.regret <= found.regret <= fixed.regret


def test_from_one_start_a_sequence_does_what_any_policy_does(judges):
    judge = next(iter(judges.values()))
    found = schedule(judge, False, np.random.default_rng(0))
    assert found.regret == pytest.approx(state_dependent(judge).regret)


def test_from_several_starts_state_helps(judges):
    judge = list(judges.values())[2]
    found = schedule(judge, True, np.random.default_rng(0))
    assert state_dependent(judge).regret < found.regret - 0.005


def test_dynamic_programming_agrees_with_trying_everything(world):
    limit = 0.4
    judge = Judge(world, (Case(world.dense, limit),))
    over, ends = world.over(limit), world.value(limit)

    @functools.cache
    def best(place):
        if over[place]:
            return ends[place]
        return max(best(int(after)) for after in world.follow(place, slice(None)))

    expected = world.regret(np.array(best(world.dense)), limit)
    assert state_dependent(judge).regret == pytest.approx(float(expected))


def test_a_schedule_by_progress_does_not_mind_where_an_episode_starts(world):
    rng = np.random.default_rng(1)
    first = world.follow(world.explore((Case(world.dense, LIMIT),))[-1], 5)
    whole = Judge(world, (Case(world.dense, LIMIT),))
    rest = Judge(world, (Case(int(first), LIMIT),))
    actions = rng.integers(len(world.actions), size=(1, whole.length))
    actions[0, 0] = 5
    assert whole.play(actions, True) == rest.play(actions, True)
    assert rest.play(actions[:, 1:], False) == rest.play(actions, True)


@pytest.mark.slow
def test_the_command_writes_rows_and_a_table(tmp_path):
    out = tmp_path / "state.jsonl"
    assert main(["state", "--channels-per-step", "0.1", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 15 and all(row["regret"] >= -1e-9 for row in rows)
    table = out.with_suffix(".md").read_text()
    assert "| one start, params ≤ 0.25 | 0.1 |" in table and "≤ 0." in table
