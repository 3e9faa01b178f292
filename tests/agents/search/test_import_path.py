"""Agents by import path: functions and classes of strangers, called with what they ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pruning_agents.comparison.cells import Cell, make_env, run_cell
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.search.import_path import resolve_agent
from pruning_agents.search.recording import EvaluationsSpent
from pruning_agents.search.rows import Provenance
from tests.helpers import own_agent

HERE = "tests.agents.search.test_import_path"
ORIGIN = Provenance("python -m benchmarks agents", "now", {"python": "3"}, "a machine", None)
SETTINGS = {"budget": {"params": 0.25}}


def run(agent: str, evaluations: int = 20, seed: int = 0, **settings: Any) -> Any:
    task = "digits-resnet8" if settings else "tabular"
    return run_cell(Cell(task, {**SETTINGS, **settings}, agent, seed, evaluations), ORIGIN)


# Guests


def two_positions(e, n):
    """Names of its own, in the order that is promised."""
    e.reset()
    for _ in range(n):
        *_, over, _, _ = e.step(e.action_space.sample())
        if over:
            e.reset()


def swapped(seed, env, *, step=1.0):
    env.reset(seed=seed)
    for _ in range(3):
        env.step(np.full(6, step, np.float32))


def only_env(env, /, scale=1.0, *more, **options):
    assert scale == 1.0 and not more and not options
    env.reset()
    env.step(env.action_space.sample())


def wants_more(env, evaluations, colour_of_the_sky, seed, progress_bar):
    raise AssertionError("never called")


class NoInterface:
    def learn(self):
        raise AssertionError("never called")


class Foreign:
    """The interface of Stable-Baselines3, and nothing of its."""

    def __init__(self, policy, env, seed=None):
        assert policy == "MlpPolicy"
        self.env, self.rng = env, np.random.default_rng(seed)

    def predict(self, observation, deterministic=False):
        return self.rng.uniform(-1, 1, 6).astype(np.float32), None

    def learn(self, total_timesteps, callback=None):
        observation, _ = self.env.reset()
        for _ in range(total_timesteps):
            observation, _, over, _, _ = self.env.step(self.predict(observation)[0])
            if not callback(locals(), globals()):
                return self
            if over:
                observation, _ = self.env.reset()
        raise AssertionError("the callback never said that the evaluations are spent")


class Deaf(Foreign):
    """Asks no callback."""

    def learn(self, total_timesteps, callback=None):
        return super().learn(total_timesteps, lambda *_: True)


def test_twenty_lines_of_a_stranger_make_a_row() -> None:
    assert len(Path(own_agent.__file__).read_text().splitlines()) <= 20
    row = run("tests.helpers.own_agent:search", 60)
    assert not row.failed and row.spent == 60 and row.feasible and row.params_ratio <= 0.25
    assert row.history[-1] == (row.history[-1][0], row.val_accuracy) and row.counts
    assert 0 < row.test_accuracy <= 1 and row.test_openings == 1
    assert row.cost is row.episodes is row.violations is None
    again = run("tests.helpers.own_agent:search", 60)
    assert again.history == row.history
    # It is written down, and read again, with what it was made from.
    assert AgentRow.from_json(row.to_json()) == row
    assert len(row.origin.weights_sha256) == len(row.origin.data_sha256) == 64


@pytest.mark.parametrize("name", ["two_positions", "swapped", "only_env"])
def test_a_function_is_given_what_it_asks_for(name: str) -> None:
    row = run(f"{HERE}:{name}")
    assert not row.failed
    assert row.spent == {"two_positions": 20, "swapped": 3, "only_env": 1}[name]
    assert row.feasible == (name == "two_positions")


def test_sampled_actions_go_by_the_seed() -> None:
    rows = [run(f"{HERE}:two_positions", seed=seed) for seed in (0, 0, 1)]
    assert rows[0].history == rows[1].history != rows[2].history


@pytest.mark.parametrize("name", ["Foreign", "Deaf"])
def test_a_class_with_the_interface_learns_until_its_evaluations_are_spent(name: str) -> None:
    row = run(f"{HERE}:{name}")
    assert not row.failed and row.spent == 20 and row.feasible
    assert row.final is not None and len(row.final.counts) == 6


def test_an_algorithm_of_stable_baselines3_is_an_agent() -> None:
    row = run("stable_baselines3:PPO")
    assert not row.failed and row.spent == 20 and row.final is not None


def test_no_step_is_made_once_the_evaluations_are_spent() -> None:
    env = make_env("tabular", SETTINGS)
    entry = resolve_agent(f"{HERE}:Deaf")
    entry.search(env, 5, 0, False)
    assert env.unwrapped.evaluations == 5  # type: ignore[attr-defined]
    assert issubclass(EvaluationsSpent, Exception)


@pytest.mark.parametrize(
    ("name", "said"),
    [("wants_more", "parameter 'colour_of_the_sky'"), ("NoInterface", "without predict")],
)
def test_what_cannot_be_called_is_refused_before_anything_runs(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        resolve_agent(f"{HERE}:{name}")


def test_costs_and_violations_are_counted_where_there_is_a_limit_on_costs() -> None:
    row = run(f"{HERE}:two_positions", 6, constraint="cost", max_steps=2, action="ratio")
    assert row.episodes == 3 and 0 <= row.violations <= 3
    assert (row.cost is None) == (not row.feasible)
    assert row.cost is None or row.cost <= 1.0


def test_rows_of_before_are_read(tmp_path: Path) -> None:
    data = json.loads(run("uniform").to_json())
    new = ("test_accuracy", "test_openings", "cost", "episodes", "violations", "origin")
    old = AgentRow.from_json(json.dumps({k: v for k, v in data.items() if k not in new}))
    assert all(getattr(old, name) is None for name in new)
    assert old.counts == tuple(data["counts"])
    with pytest.raises(ValueError, match="not a row"):
        AgentRow.from_json(json.dumps({**data, "colour": 1}))
