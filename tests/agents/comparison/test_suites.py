"""Suites stay what they are, and rows that say that they are of one, are."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from benchmarks.agents.run import AgentsSettings, plan
from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.leaderboard import to_markdown
from pruning_agents.comparison.questions import questions
from pruning_agents.comparison.replay import Verdict, replay
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.suites import objections
from pruning_agents.search.rows import Provenance
from pruning_env import SUITES, get_suite
from pruning_env.tabular.table import SHIPPED, load_table
from pruning_env.tasks.fingerprints import splits_hash, weights_hash
from pruning_env.tasks.registry import get_task

ORIGIN = Provenance("python -m benchmarks agents", "now", {"python": "3"}, "a machine", None)

#: A suite that is to be another needs another name: add its hash here, and change none.
FROZEN = {
    "solved-v1": "950e35ed0f2f396ce503b2a836cf67adca3dbcc735cf9c797fe233579c1c49bc",
    "real-small-v1": "63289aef7ea82c20bf85a33d0505eb7f19aea690d0659bcfd513d8d13cf7c4dc",
    "real-v1": "25dd7112d2cabc65a20e5cbe6694efb196666a42c9766d842b11e00b7acb48a3",
}

#: Of both columns of correct answers of the table.
ANSWERS = "6572eef4951713ffea9576c8cd3d9b52b69056d58ecd3d10fb9d00e3e3f272d8"


def cells_of(agents: tuple[str, ...], suite: str = "solved-v1") -> list[Cell]:
    return plan(AgentsSettings(agents=agents, suite=suite))


@functools.cache
def rows_of(agent: str) -> tuple[AgentRow, ...]:
    """Of an agent that no seed changes: all that solved-v1 asks for."""
    return tuple(run_cell(cell, ORIGIN) for cell in cells_of((agent,)))


# What is frozen


def test_suites_are_frozen() -> None:
    assert {name: suite.sha256 for name, suite in SUITES.items()} == FROZEN


def test_whatever_a_search_would_notice_changes_the_hash() -> None:
    suite = get_suite("solved-v1")
    first = suite.problems[0]
    for change in (
        {"kwargs": {**first.kwargs, "max_steps": 3}},
        {"evaluations": 501},
        {"seeds": 21},
        {"env_id": "CNNPrune-v0"},
        {"weights_sha256": "0" * 64},
        {"data_sha256": "0" * 64},
    ):
        problems = (dataclasses.replace(first, **change), *suite.problems[1:])
        assert dataclasses.replace(suite, problems=problems).sha256 != suite.sha256
    shorter = dataclasses.replace(suite, problems=suite.problems[1:])
    assert shorter.sha256 != suite.sha256


def test_the_answers_of_solved_v1_are_frozen() -> None:
    answers = load_table(SHIPPED).results["bn"]
    found = answers.val_correct.tobytes() + answers.test_correct.tobytes()
    assert hashlib.sha256(found).hexdigest() == ANSWERS


def hashes(task: str) -> tuple[str, str]:
    known = get_task(task)
    return weights_hash(known.model()), splits_hash(known.load_data(None))


def test_the_network_and_the_images_of_real_small_v1_are_those_that_come_with_the_package() -> None:
    found = hashes("digits-resnet8")
    for problem in get_suite("real-small-v1").problems:
        assert (problem.weights_sha256, problem.data_sha256) == found


@pytest.mark.data
@pytest.mark.slow
def test_the_networks_and_the_images_of_real_v1_are_the_published_ones() -> None:
    for problem in get_suite("real-v1").problems:
        found = hashes(problem.kwargs["task"])
        assert (problem.weights_sha256, problem.data_sha256) == found


def test_an_unknown_suite_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"suite='solved-v0' is not known; known: solved-v1"):
        get_suite("solved-v0")


# Running one


def test_a_suite_asks_for_each_problem_with_each_seed() -> None:
    cells = cells_of(("uniform", "cem"))
    problems = get_suite("solved-v1").problems
    assert sum(cell.agent == "cem" for cell in cells) == 20 * len(problems)
    assert sum(cell.agent == "uniform" for cell in cells) == len(problems)
    assert {(cell.evaluations, cell.suite) for cell in cells} == {(500, "solved-v1")}
    assert len({cell.key for cell in cells}) == len(cells)
    budgets = [cell.settings["budget"] for cell in cells if cell.agent == "uniform"]
    assert budgets == [problem.kwargs["budget"] for problem in problems]
    (task,) = {cell.task for cell in cells_of(("uniform",), "real-small-v1")}
    assert task == "digits-resnet8"


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--seeds", "3"), ("--seed", "0"), ("--evaluations", "9"), ("--tasks", "tabular")),
        *(("--budget", "macs=0.5"), ("--set", "max_steps=1"), ("--limit", "cem=9")),
    ],
)
def test_what_a_suite_says_cannot_be_said_otherwise(
    option: str, value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    arguments = ["agents", "--suite", "solved-v1", "--agents", "uniform", "--out", str(out)]
    with pytest.raises(SystemExit):
        main([*arguments, option, value])
    said = "".join(capsys.readouterr())
    assert f"{option} is not allowed with --suite solved-v1" in said
    assert not out.exists()


# Rows


def test_rows_of_a_suite_say_so() -> None:
    rows = rows_of("uniform")
    assert {row.suite for row in rows} == {"solved-v1"}
    assert AgentRow.from_json(rows[0].to_json()) == rows[0]
    assert [question.title.partition(":")[0] for question in questions(rows)] == ["solved-v1"] * 6


def test_a_row_of_no_suite_and_one_of_a_suite_answer_different_questions() -> None:
    row = rows_of("uniform")[0]
    other = dataclasses.replace(row, suite=None)
    assert other.key != row.key and objections(other) == []
    assert len(questions([row, other])) == 2


def test_a_row_that_only_says_that_it_is_of_a_suite_is_told() -> None:
    row: Any = rows_of("uniform")[0]
    assert objections(row) == []
    strange = dataclasses.replace(row.origin, weights_sha256="0" * 64)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("not known", {"suite": "solved-v0"}),
        ("no such task", {"suite": "real-small-v1"}),
        ("no such task", {"settings": {"budget": {"params": 0.26}, "recovery": "bn"}}),
        ("allows 500, not 501", {"allowed": 501}),
        ("seeds 0 to 19, not 20", {"seed": 20}),
        ("other weights", {"origin": strange}),
        ("what it was made from", {"origin": None}),
    ]
    for said, change in cases:
        assert any(said in why for why in objections(dataclasses.replace(row, **change))), change


def test_a_row_of_a_suite_replays_only_if_it_is_of_it() -> None:
    row = rows_of("uniform")[0]
    ours, theirs = replay([row, dataclasses.replace(row, allowed=501)])
    assert ours.replays
    assert theirs.problems == ("suite solved-v1 allows 500, not 501",)


# The leaderboard


def test_the_leaderboard_has_a_section_per_suite_with_a_mean_of_who_has_all_rows() -> None:
    whole = [*rows_of("uniform"), *rows_of("global-taylor")]
    part = [dataclasses.replace(rows_of("uniform")[0], agent="somebody", seeded=True)]
    alone = [dataclasses.replace(row, suite=None) for row in rows_of("uniform")[:1]]
    page = to_markdown([Verdict(row, ()) for row in (*alone, *whole, *part)], "a command")
    section, rest = page.split("## solved-v1\n")[1].split("\n## tabular, ")
    suite = get_suite("solved-v1")
    assert suite.sha256 in section and section.count("\n### solved-v1: tabular, ") == 6
    mean = sum(float(row.regret_at(500)[0]) for row in rows_of("uniform")) / 6
    together = section.split("### ")[0]
    assert f"| uniform | 1 | {mean:.4f} |" in together
    assert "| somebody |" not in together and "somebody (1 rows)" in together
    assert "solved-v1" not in rest.partition("**To submit")[0]
