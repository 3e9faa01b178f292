"""Rows that replay, rows that were tampered with, two files side by side, and the leaderboard."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import main
from pruning_agents.cli.main import main as cnnprune
from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.compare import compare
from pruning_agents.comparison.leaderboard import to_markdown
from pruning_agents.comparison.replay import replay
from pruning_agents.comparison.rerun import rerun
from pruning_agents.comparison.rows import AgentRow, Anchors, read_rows
from pruning_agents.search.rows import Provenance, append_row
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.paths import ROOT

ORIGIN = Provenance("python -m benchmarks agents", "now", {"python": "3"}, "a machine", None)
RESULTS = ROOT / "benchmarks" / "results" / "agents-tabular.jsonl"


@functools.cache
def row_of(agent: str, task: str = "tabular", seed: int = 0) -> AgentRow:
    return run_cell(Cell(task, {"budget": {"params": 0.25}}, agent, seed, 20), ORIGIN)


def honest() -> list[AgentRow]:
    return [
        row_of("random-search"),
        row_of("rl-pruner"),
        row_of("random-search", "digits-resnet8"),
        row_of("tests.agents.search.test_import_path:only_env"),  # found nothing
    ]


def file_of(path: Path, rows: Any) -> Path:
    for row in rows:
        append_row(path, row)
    return path


# Validate


def test_honest_rows_replay() -> None:
    for verdict in replay(honest()):
        assert verdict.problems == () and verdict.replays and not verdict.note


@pytest.mark.parametrize("task", ["tabular", "digits-resnet8"])
def test_whatever_was_tampered_with_is_named(task: str) -> None:
    row: Any = row_of("random-search", task)
    better = row.val_accuracy + 0.0025  # one image
    history = (*row.history[:-1], (row.history[-1][0], better))
    last = row.counts[-1]
    fewer = (*row.counts[:-1], 60 if last == 64 else last - 5)
    weights = dataclasses.replace(row.origin, weights_sha256="0" * 64)
    data = dataclasses.replace(row.origin, data_sha256="0" * 64)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("val_accuracy is ", {"val_accuracy": better, "history": history}),
        ("test_accuracy is ", {"test_accuracy": row.test_accuracy + 0.01}),
        ("params is ", {"params": row.params - 1}),
        ("macs is ", {"macs": row.macs - 1}),
        ("macs_ratio is ", {"macs_ratio": row.macs_ratio - 1e-6}),
        ("params is ", {"counts": fewer}),
        ("counts", {"counts": (0, *row.counts[1:])}),
        ("weights differ", {"origin": weights}),
        ("data differ", {"origin": data}),
        ("measured by", {"anchors": Anchors(0.99, 0.1)}),
        ("cost is None, not 1.0", {"cost": 1.0}),
        ("spent 21 of 20", {"spent": 21}),
        ("history ends", {"history": ((1, 0.99),)}),
        ("history does not rise", {"history": ((1, 0.99), *row.history)}),
        ("history is at [30]", {"history": ((30, row.val_accuracy),)}),
        ("do not say the same", {"feasible": False}),
        ("2 openings", {"test_openings": 2}),
        ("loaded the test split itself: 3", {"test_loads": 3}),
        ("does not meet the budget", {"settings": {"budget": {"params": 0.1}}}),
        ("cannot be made", {"settings": {"budget": {"taste": 0.1}}}),
    ]
    if task != "tabular":
        settings: dict[str, Any] = {"budget": {"params": 0.25}, "recovery": "finetune"}
        cases.append(("its recovery trains", {"settings": settings}))
        settings = {**settings, "recover_when": "commit"}
        cases.append(("its recovery trains", {"settings": settings}))
        settings = {"budget": {"params": 0.25}, "rank_every": 1}
        cases.append(("ranked anew", {"settings": settings}))
    changed = [dataclasses.replace(row, **changes) for _, changes in cases]
    for verdict, (said, changes) in zip(replay(changed), cases, strict=True):
        assert not verdict.replays and any(said in each for each in verdict.problems), changes


@pytest.mark.parametrize("task", ["tabular", "digits-resnet8"])
def test_surgery_that_is_not_masking_is_named(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_of("random-search", task)
    monkeypatch.setattr(ChannelGraph, "mask", lambda graph, model, keep: model)
    (verdict,) = replay([row])
    (problem,) = verdict.problems
    assert problem.startswith("logits of the pruned and the masked network differ by ")


@pytest.mark.parametrize(("images", "replays"), [(2, True), (3, False)])
def test_a_table_that_its_network_contradicts_is_named(
    images: int, replays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    row: Any = row_of("random-search")
    measured = Evaluator.evaluate

    def turned(evaluator: Evaluator, keep: Any) -> Any:
        found = measured(evaluator, keep)
        off = images / len(evaluator.images("search-val")[1])
        return dataclasses.replace(found, accuracy=row.val_accuracy + off)

    monkeypatch.setattr(Evaluator, "evaluate", turned)
    (verdict,) = replay([row])
    assert verdict.replays == replays
    assert replays or verdict.problems[0].startswith("network is ")


def test_what_is_said_of_the_final_policy_is_replayed() -> None:
    row: Any = row_of("rl-pruner")
    lies: list[dict[str, Any]] = [{"accuracy": 0.99}, {"feasible": False}, {"counts": (1,) * 6}]
    rows = [dataclasses.replace(row, final=dataclasses.replace(row.final, **lie)) for lie in lies]
    for verdict, said in zip(replay(rows), ("accuracy", "feasible", "counts"), strict=True):
        (problem,) = verdict.problems
        assert "final" in problem and said in problem


def test_rows_of_before_replay_and_say_what_they_lack() -> None:
    new = (
        "test_accuracy",
        "test_openings",
        "test_loads",
        "cost",
        "episodes",
        "violations",
        "origin",
    )
    nothing: dict[str, Any] = dict.fromkeys(new)
    old = dataclasses.replace(row_of("random-search"), **nothing)
    (verdict,) = replay([old])
    assert verdict.replays and verdict.note == "says nothing of weights and data"


def test_the_command_accepts_rows_and_refuses_a_tampered_one(tmp_path: Path, capsys: Any) -> None:
    path = file_of(tmp_path / "rows.jsonl", honest())
    assert main(["validate", str(path)]) == 0
    assert "4 of 4 rows replay" in capsys.readouterr().out
    row: Any = row_of("random-search")
    file_of(path, [dataclasses.replace(row, params=row.params - 1)])  # the later row counts
    assert main(["validate", str(path)]) == 1
    said = capsys.readouterr().out
    assert "random-search, tabular, seed 0: params is" in said and "3 of 4 rows replay" in said
    with pytest.raises(SystemExit) as stopped:
        main(["validate", str(tmp_path / "none.jsonl")])
    assert stopped.value.code == 2 and "is no file" in capsys.readouterr().err


# Compare


def made(agent: str, accuracies: list[float], **changes: Any) -> list[AgentRow]:
    return [
        dataclasses.replace(
            row_of("random-search"),
            agent=agent,
            seed=seed,
            history=((1, accuracy),),
            val_accuracy=accuracy,
            anchors=Anchors(0.9, 0.4),
            **changes,
        )
        for seed, accuracy in enumerate(accuracies)
    ]


def test_differences_are_of_pairs_and_words_are_no_stronger_than_intervals() -> None:
    base = [0.5, 0.6, 0.7, 0.8, 0.55, 0.65]
    ours = made("x", [each + 0.05 for each in base])
    (found,) = compare(ours, made("y", base))
    assert found.pairs == 6 and found.interval is not None
    # Between seeds there is far more than between partners, who all differ by a tenth.
    assert found.interval.estimate == pytest.approx(-0.1)
    assert found.interval.low == pytest.approx(-0.1) == found.interval.high
    assert found.words == "x is better than y"
    (level,) = compare(made("x", base), made("y", base[::-1]))
    assert level.words == "not distinguishable" and "not distinguishable" in str(level)
    (few,) = compare(ours[:4], made("y", base))
    assert few.pairs == 4 and "too few pairs" in few.words
    (one,) = compare(ours[:1], made("y", base))
    assert one.interval is None and "too few pairs" in str(one)


def test_two_versions_of_the_same_agents_are_told_apart_by_their_files() -> None:
    rows = made("x", [0.5] * 5) + made("y", [0.6] * 5)
    newer = made("x", [0.7] * 5) + made("z", [0.6] * 5)
    (found,) = compare(newer, rows, labels=("new", "old"))
    assert found.words == "x (new) is better than x (old)"
    (found,) = compare(newer, rows, agents=("z", "y"))
    assert found.names == ("z", "y") and found.words == "not distinguishable"
    with pytest.raises(ValueError, match="'y' is not in the first file: x, z"):
        compare(newer, rows, agents=("y", "y"))


def test_failures_are_said_and_agents_without_chance_are_partners_at_every_seed() -> None:
    ours = made("x", [0.5] * 6)
    ours[0] = dataclasses.replace(ours[0], failed="it raised")
    theirs = made("y", [0.6], seeded=False)
    (found,) = compare(ours, theirs)
    assert found.pairs == 5 and found.failed == (1, 0)
    assert "left out: 1 rows of x" in str(found)


def test_what_does_not_pair_is_said_with_what_there_is() -> None:
    ours, theirs = made("x", [0.5] * 5), made("y", [0.5] * 5)
    apart = [dataclasses.replace(row, seed=row.seed + 10) for row in theirs]
    with pytest.raises(ValueError, match=r"seeds 0, 1, 2, 3, 4.*seeds 10, 11"):
        compare(ours, apart)
    other = [dataclasses.replace(row, settings={"budget": {"macs": 0.5}}) for row in theirs]
    with pytest.raises(ValueError, match="nothing pairs"):
        compare(ours, other)
    with pytest.raises(ValueError, match="nothing pairs"):
        compare(ours, [dataclasses.replace(row, allowed=30) for row in theirs])
    with pytest.raises(ValueError, match="none is in both"):
        compare(ours + theirs, made("z", [0.5] * 5))


def test_the_command_compares_two_files(tmp_path: Path, capsys: Any) -> None:
    first = file_of(tmp_path / "a.jsonl", made("x", [0.5] * 5))
    second = file_of(tmp_path / "b.jsonl", made("x", [0.5] * 5))
    assert main(["compare", str(first), str(second), "--at", "10"]) == 0
    said = capsys.readouterr().out
    assert "x (a.jsonl)" in said and "not distinguishable" in said and "5 pairs" in said
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(first), str(tmp_path / "none")])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit):
        main(["compare", str(first), str(second), "--agents", "x"])
    assert "--agents" in capsys.readouterr().err


# Leaderboard


def test_only_what_replays_is_ranked(tmp_path: Path, capsys: Any) -> None:
    good: Any = row_of("random-search")
    rows = [
        good,
        row_of("uniform"),
        dataclasses.replace(good, agent="liar", params=1),
        dataclasses.replace(good, agent="sick", failed="it raised", feasible=False, counts=None),
        dataclasses.replace(row_of("uniform"), agent="old", origin=None),
    ]
    path, out = file_of(tmp_path / "rows.jsonl", rows), tmp_path / "BOARD.md"
    assert main(["leaderboard", str(path), "--out", str(out)]) == 0
    page = out.read_text()
    ranked = [line.split(" | ")[0][2:] for line in page.splitlines() if line.startswith("| ")]
    places = {agent: ranked.index(agent) for agent in ("random-search", "uniform", "old ‡")}
    regrets = {row.agent: row.regret_at(20)[0] for row in rows[:2]}
    assert (places["random-search"] < places["uniform"]) == (
        regrets["random-search"] < regrets["uniform"]
    )
    assert "liar" not in ranked and "1 rows of liar" in page and "1 rows of sick" in page
    assert "To submit a row" in page and f"python -m benchmarks leaderboard {path}" in page
    assert f"{100 * good.test_accuracy:.1f}" in page
    with pytest.raises(ValueError, match="no row replays"):
        to_markdown(list(replay([rows[3]])), "x")


def test_searches_of_registered_agents_on_the_solved_tier_are_run_again() -> None:
    honest, image = row_of("random-search"), row_of("random-search", "digits-resnet8")
    other = row_of("random-search", seed=1)
    # What replays and yet was not found by this search with this seed.
    forged = dataclasses.replace(other, seed=2)
    guest = dataclasses.replace(honest, agent="mymodule:search")
    rows = [honest, other, forged, image, guest, dataclasses.replace(honest, params=1)]
    verdicts = list(replay(rows))
    assert [verdict.replays for verdict in verdicts] == [True] * 5 + [False]
    told = rerun(verdicts, seeds=3)
    assert [verdict.again for verdict in told] == [True, True, False, None, None, None]
    assert [verdict.again for verdict in rerun(verdicts, seeds=1)][:2] == [True, None]
    page = to_markdown(told, "x")
    assert " 2 of 3 |" in page and page.count(" - |\n") >= 2


# The rows of the repository, and the console script


@pytest.mark.slow
def test_the_rows_of_the_repository_replay() -> None:
    rows = list(read_rows(RESULTS).values())
    problems = [verdict.problems for verdict in replay(rows) if verdict.problems]
    assert rows and not problems


def test_the_commands_that_read_rows_come_with_cnnprune(tmp_path: Path, capsys: Any) -> None:
    first = file_of(tmp_path / "a.jsonl", made("x", [0.5] * 5))
    assert cnnprune(["compare", str(first), str(first)]) == 0
    assert "not distinguishable" in capsys.readouterr().out
    for name in ("compare", "validate", "leaderboard"):
        with pytest.raises(SystemExit) as stopped:
            cnnprune([name, "--help"])
        said = capsys.readouterr().out
        assert stopped.value.code == 0 and "usage: cnnprune" in said and "%%" not in said
    with pytest.raises(SystemExit) as stopped:
        cnnprune(["validate", str(tmp_path / "none.jsonl")])
    assert stopped.value.code == 2 and "is no file" in capsys.readouterr().err
