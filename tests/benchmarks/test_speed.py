"""The speed benchmark: tiny runs that write rows, a table and a figure, and resume."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from benchmarks.speed import growth
from benchmarks.speed.command import run_speed
from benchmarks.speed.growth import SCALING_AXES, scaling
from benchmarks.speed.report import to_markdown
from benchmarks.speed.rows import QUESTIONS, SpeedRow, read_speed_rows
from benchmarks.speed.settings import SpeedSettings
from tests.helpers.paths import ROOT


def test_a_smoke_run_writes_rows_table_and_figure_and_resumes(tmp_path: Path) -> None:
    asked = tuple(name for name in QUESTIONS if name != "peer")  # needs another library
    settings = SpeedSettings(questions=asked, smoke=True, out=tmp_path / "speed.jsonl")
    rows = run_speed(settings, "typed", Console(quiet=True))
    assert {row.question for row in rows} == set(asked)
    assert all(seconds > 0 for row in rows for seconds in row.seconds.values())
    of = {question: [row for row in rows if row.question == question] for question in asked}
    assert of["step"][0].ratios["step / floor"] > 0.5
    assert [row.subject for row in of["scaling"]] == list(SCALING_AXES)
    crossover = of["crossover"][0]
    assert set(crossover.seconds) == {"sliced", "masked", "batched 2"}
    assert set(crossover.ratios) == {"masked / sliced", "batched 2 / sliced"}
    search = of["search"][0]
    hours = 8_000 * search.seconds["candidate"] * 10_000 / search.images / 3600
    assert search.ratios["hours for 8,000 candidates"] == pytest.approx(hours)
    assert search.ratios["candidates per second"] == pytest.approx(1 / search.seconds["candidate"])
    table = (tmp_path / "speed.md").read_text()
    assert "SMOKE RUN" in table and "batched 2 ms" in table
    assert (tmp_path / "speed.png").stat().st_size > 1000

    before = (tmp_path / "speed.jsonl").read_bytes()
    assert run_speed(settings, "again", Console(quiet=True)) == rows
    assert (tmp_path / "speed.jsonl").read_bytes() == before
    row = read_speed_rows(settings.out)[0]
    assert SpeedRow.from_json(row.to_json()) == row
    assert dataclasses.replace(row, device="cuda").key != row.key


@pytest.mark.parametrize("axis", ["images", "N"])
def test_the_slope_is_the_power_of_what_grows(axis: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def seconds(function: object, device: object) -> float:
        del device
        evaluate, (keeps,) = function.func, function.args  # type: ignore[attr-defined]
        return len(keeps) * float(len(evaluate.__self__.images("search-val")[0])) ** 1.5

    monkeypatch.setattr(growth, "timed", seconds)
    figures = scaling(axis, SpeedSettings(smoke=True))
    assert figures.ratios["slope"] == pytest.approx({"images": 1.5, "N": 1.0}[axis])
    times = list(figures.seconds.values())
    assert np.all(np.diff(times) > 0) and len(times) == 2


def test_the_gpu_script_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "speed.jsonl"
    command = [str(ROOT / "benchmarks/gpu_speed.sh"), "--smoke", "--device", "cpu"]
    command += ["--out", str(out), "--questions", "crossover"]
    path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHON": sys.executable, "PYTHONPATH": path}
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    rows = read_speed_rows(out)
    assert {(row.question, row.device, row.smoke) for row in rows} == {("crossover", "cpu", True)}
    assert "benchmarks speed" in rows[0].provenance.command


def test_a_table_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([])
