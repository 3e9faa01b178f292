"""Cheaters come out no better than random actions, or with a row that says why there is no result.

On the solved tier and on the network itself, with as many evaluations as random actions have.
"""

from __future__ import annotations

import functools
from typing import Any

import pytest

from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.replay import replay
from pruning_agents.search.rows import Provenance

ORIGIN = Provenance("python -m benchmarks agents", "now", {"python": "3"}, "a machine", None)
TASKS = {"tabular": 60, "digits-resnet8": 40}
SEED = 1

#: Cheater -> what its row says, None where it has an honest and poor result.
CAUGHT: dict[str, str | None] = {
    "prune_everything": None,
    "collapse_one_layer": None,
    "no_op": "does not meet the budget",
    "repeat_cached": None,
    "collapse_the_statistics": "incumbent has accuracy",
    "copy_environment": "evaluations",
    "pickle_environment": "evaluations",
    "make_another_environment": "evaluations",
    "forget_what_was_spent": "evaluations",
    "set_the_counter": "AttributeError",
    "backdate": "when no network had had that accuracy yet",
}

#: A table has no images.
ON_IMAGES = ("collapse_the_statistics", "calibrate_on_val")


@functools.cache
def row_of(agent: str, task: str) -> Any:
    return run_cell(Cell(task, {"budget": {"params": 0.25}}, agent, SEED, TASKS[task]), ORIGIN)


def random_regret(task: str) -> float:
    row = row_of("random-policy", task)
    assert not row.failed and row.feasible
    return float(row.regret_at(row.allowed)[0])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", CAUGHT)
def test_a_cheater_is_no_better_than_random_actions(name: str, task: str) -> None:
    row = row_of(f"benchmarks.cheaters:{name}", task)
    said = CAUGHT[name]
    if task == "tabular" and name in ON_IMAGES:
        said = "a table has no images"
    if said is None:
        assert not row.failed
    else:
        assert said in row.failed and not row.feasible and row.val_accuracy is None
    # A row that is refused has found nothing, which is worse than any network.
    assert row.regret_at(row.allowed)[0] >= random_regret(task)


def test_statistics_of_the_images_that_are_judged_win_nothing() -> None:
    """The judge has statistics of its own: either it sees the same accuracy, or it refuses."""
    row = row_of("benchmarks.cheaters:calibrate_on_val", "digits-resnet8")
    honest = row_of("random-search", "digits-resnet8")
    assert "incumbent has accuracy" in row.failed or row.val_accuracy <= honest.val_accuracy + 2e-3


@pytest.mark.parametrize("task", TASKS)
def test_looks_at_test_show_in_the_row_which_does_not_replay(task: str) -> None:
    row = row_of("benchmarks.cheaters:choose_by_test", task)
    assert not row.failed and row.test_openings == 3
    (verdict,) = replay([row])
    assert verdict.problems == ("the search looked at test: 3 openings",)


def test_a_test_split_that_was_loaded_again_shows_in_the_row_too() -> None:
    row = row_of("benchmarks.cheaters:load_the_test_split", "digits-resnet8")
    assert not row.failed and (row.test_openings, row.test_loads) == (1, 1)
    assert row_of("random-policy", "digits-resnet8").test_loads == 0
    (verdict,) = replay([row])
    assert verdict.problems == ("the search loaded the test split itself: 1 loads",)


def test_published_answers_can_be_read_and_nothing_shows_it() -> None:
    """A hole that is known: where the solution is published, only reading the agent helps."""
    row = row_of("benchmarks.cheaters:read_the_answers", "tabular")
    assert not row.failed and row.regret_at(1)[0] == 0.0
