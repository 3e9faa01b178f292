"""The speed benchmark: tiny runs that write rows, a table and a figure, and resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.speed.command import run_speed
from benchmarks.speed.questions import SpeedSettings
from benchmarks.speed.report import to_markdown
from benchmarks.speed.rows import SpeedRow, read_speed_rows

QUESTIONS = ("step", "search", "vector")


def test_a_smoke_run_writes_rows_table_and_figure_and_resumes(tmp_path: Path) -> None:
    settings = SpeedSettings(questions=QUESTIONS, smoke=True, out=tmp_path / "speed.jsonl")
    rows = run_speed(settings, "typed", Console(quiet=True))
    assert {row.question for row in rows} == set(QUESTIONS)
    assert all(seconds > 0 for row in rows for seconds in row.seconds.values())
    step = next(row for row in rows if row.question == "step")
    assert step.ratios["step / floor"] > 0.5
    assert "SMOKE RUN" in (tmp_path / "speed.md").read_text()
    assert (tmp_path / "speed.png").stat().st_size > 1000

    before = (tmp_path / "speed.jsonl").read_bytes()
    assert run_speed(settings, "again", Console(quiet=True)) == rows
    assert (tmp_path / "speed.jsonl").read_bytes() == before
    row = read_speed_rows(settings.out)[0]
    assert SpeedRow.from_json(row.to_json()) == row
    assert dataclasses.replace(row, device="cuda").key != row.key


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([])
