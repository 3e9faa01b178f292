"""What `cnnprune train` leaves is what commands that read rows take; rows say how they ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import pruning_env  # noqa: F401  (registers the environments)
from benchmarks.__main__ import main as benchmarks
from pruning_agents.cli.main import main
from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.rows import AgentRow, rows_of_files
from pruning_agents.search.recording import LimitedRecorder
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance, ResultRow

HERE = Provenance("typed", "now", {"python": "3"}, "a machine", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that `cnnprune train` wrote, one per agent."""
    folder = tmp_path_factory.mktemp("trained")
    for agent in ("random-search", "cem"):
        out = str(folder / agent)
        train = ["train", "--agent", agent, "--evaluations", "4", "--no-progress"]
        assert main([*train, "--set", "val_images=50", "--out", out]) == 0
    return folder


def test_a_result_is_a_row_of_an_agent(trained: Path) -> None:
    path = trained / "cem" / "result.json"
    result = ResultRow.from_json(path.read_text())
    (row,) = rows_of_files([path])
    assert (row.agent, row.task, row.spent, row.counts) == (
        "cem",
        "digits-resnet8",
        4,
        result.counts,
    )
    assert row.allowed == result.allowed == 4
    assert row.settings["budget"] == {"params": 0.25} and row.settings["val_images"] == 50


def test_what_was_trained_is_validated_compared_and_ranked(
    trained: Path, tmp_path: Path, capsys: Any
) -> None:
    assert main(["validate", str(trained)]) == 0
    assert "2 of 2 rows replay" in capsys.readouterr().out
    assert main(["compare", str(trained / "cem"), str(trained / "random-search/result.json")]) == 0
    assert "1 pairs" in capsys.readouterr().out
    out = tmp_path / "board.md"
    assert main(["leaderboard", str(trained / "cem"), "--out", str(out)]) == 0
    assert "| cem" in out.read_text()


def test_a_tampered_result_does_not_replay(trained: Path, tmp_path: Path, capsys: Any) -> None:
    data = json.loads((trained / "cem" / "result.json").read_text())
    data["counts"][0] -= 1
    (tmp_path / "result.json").write_text(json.dumps(data))
    assert main(["validate", str(tmp_path)]) == 1
    assert "params is" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["validate", "compare", "leaderboard"])
@pytest.mark.parametrize("kind", ["folder", "missing", "foreign"])
def test_what_holds_no_rows_is_refused_with_what_is_wanted(
    tmp_path: Path, capsys: Any, command: str, kind: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign.jsonl").write_text('{"agent": "cem"}\n')
    path = str(tmp_path / {"folder": "empty", "missing": "no", "foreign": "foreign.jsonl"}[kind])
    with pytest.raises(SystemExit) as stopped:
        main([command, path, *([path] if command == "compare" else [])])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert path in said and "Give what `cnnprune train`" in said


def test_help_of_a_command_is_under_its_own_name(capsys: Any) -> None:
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    said = capsys.readouterr().out
    assert said.startswith("usage: cnnprune compare") and "95 %" in said and "%%" not in said


def test_the_comparison_of_agents_prints_its_table(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "rows.jsonl"
    command = ["agents", "--agents", "uniform,random-search", "--seeds", "1", "--evaluations", "3"]
    assert benchmarks([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "| random-search" in said and "| agent" in said
    assert rows_of_files([tmp_path])[0].agent == "uniform"


# Why a search ends


@pytest.mark.parametrize(
    ("agent", "evaluations", "settings", "ended"),
    [
        ("random-search", 5, {}, "spent"),
        ("uniform", 5, {}, "nothing new"),
        # Three networks are within one unit of the dense one: what is left is known soon.
        ("random-search", 40, {"groups": ["conv1"], "budget": {"params": 0.999}}, "visits"),
        ("ppo", 20, {"groups": ["conv1"], "budget": {"params": 0.999}}, "visits"),
    ],
)
def test_rows_say_why_the_search_ended(
    agent: str, evaluations: int, settings: dict[str, Any], ended: str
) -> None:
    settings = {"budget": {"params": 0.5}, **settings}
    row = run_cell(Cell("tabular", settings, agent, 0, evaluations), HERE)
    assert (row.failed, row.ended) == ("", ended)
    assert AgentRow.from_json(row.to_json()) == row
    assert (row.spent == evaluations) == (ended == "spent")


def test_a_guest_that_stops_early_says_so() -> None:
    env = LimitedRecorder(gym.make("CNNPruneTabular-v0"), "guest", 3)
    env.reset()
    assert env.ended == "nothing new"
    while env.left > 0:
        if env.step(env.action_space.sample())[2]:
            env.reset()
    assert env.ended == "spent"


def test_training_prints_why_it_ended_and_a_result_keeps_it(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "out"
    train = ["train", "--agent", "uniform", "--evaluations", "9", "--set", "val_images=50"]
    assert main([*train, "--no-progress", "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 9 evaluations" in said and "had nothing more to try" in said
    assert ResultRow.from_json((out / "result.json").read_text()).ended == "nothing new"
    assert get_agent("uniform").seeded is rows_of_files([out])[0].seeded is False
