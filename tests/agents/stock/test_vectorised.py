"""PPO on many episodes at once: it keeps to its evaluations, and what it says is so."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import pytest

from pruning_agents import Cell, run_cell, vectorised_ppo
from pruning_agents.search.rows import Provenance

ORIGIN = Provenance("a command", "now", {"python": "3"}, "a machine", None)
ONE_STEP: dict[str, Any] = {"constraint": "project", "max_steps": 1}


@pytest.mark.parametrize("evaluations", [5, 150])
@pytest.mark.parametrize("settings", [ONE_STEP, {"observation": "dict"}], ids=["one step", "steps"])
def test_a_row_of_it_is_what_the_environment_counted(
    evaluations: int, settings: dict[str, Any]
) -> None:
    cell = Cell("tabular", settings, "pruning_agents:vectorised_ppo", 0, evaluations)
    row = run_cell(cell, ORIGIN)
    assert not row.failed  # the history, the incumbent and the count are checked there
    assert evaluations - 64 < row.spent <= evaluations and row.ended == "spent"
    assert row.final is not None
    if settings == ONE_STEP:  # each end is within the budget
        assert row.feasible
    again = run_cell(cell, ORIGIN)
    assert (again.history, again.counts) == (row.history, row.counts)


def test_environments_that_are_no_table_or_whose_violations_count_are_refused() -> None:
    constrained = gym.make("CNNPruneTabular-v0", constraint="cost", max_steps=2, action="ratio")
    with pytest.raises(ValueError, match="constraint='cost'"):
        vectorised_ppo(constrained, 100, 0)
    with pytest.raises(ValueError, match="CNNPruneTabular-v0"):
        vectorised_ppo(gym.make("CartPole-v1"), 100, 0)
