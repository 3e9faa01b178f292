"""kill -9 at random moments: what is left is whole, and the next run goes on from it.

Runs are forks of a process that has imported everything, so that kills fall into the work of a
command and not into the ten seconds that importing takes. The moments are drawn from a fixed seed,
over the time that an undisturbed run takes. `test_disk.py` has the worst moments, at every run of
the quick tests.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.__main__ import main as benchmarks
from pruning_agents.cli.main import main
from pruning_agents.comparison.rows import AgentRow, read_rows
from pruning_agents.search.rows import ResultRow
from pruning_env.tasks.storage import load_pruned
from tests.helpers.forks import Fork, is_warm

KILLS = {"train": 45, "prune": 45, "benchmarks": 10}
"""100 in all. A run of the last starts workers, each a fresh interpreter: it is the slowest."""

TRAIN = [
    *("train", "--agent", "ppo", "--env", "CNNPruneTabular-v0", "--seed", "5", "--no-progress"),
    *("--evaluations", "120", "--checkpoint-every", "20", "--resume"),
]
PRUNE = ["prune", "--budget", "params=0.5", "--force"]


def left_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def whole(folder: Path) -> dict[str, Any]:
    """What a folder of results holds; everything in it that has its final name must be whole."""
    found: dict[str, Any] = {}
    if (folder / "result.json").exists():
        found["row"] = ResultRow.from_json((folder / "result.json").read_text())
        assert (folder / "pruned").exists(), "a row without its network"
    if (folder / "pruned").exists():
        model = load_pruned(folder / "pruned")
        found["params"] = sum(parameter.numel() for parameter in model.parameters())
    for name in ("checkpoint.zip", "agent.zip"):
        if (folder / name).exists():
            with zipfile.ZipFile(folder / name) as file:
                assert file.testzip() is None
                if name == "checkpoint.zip":
                    assert json.loads(file.read("about.json"))["seed"] == 5
                    found["checkpoint"] = file.getinfo("rest.pkl").file_size
    return found


def sooner(seconds: float, reference: float) -> float:
    """When to kill at the latest, after a run that ended before it could be killed.

    The machine may be less busy than it was when the reference was timed.
    """
    return max(0.8 * seconds, 0.3 * reference)


def kill_trainings(kills: int, folder: Path) -> int:
    """Kill so many; how many runs ended before they could be killed, the last one included."""
    reference, out = folder / "reference", folder / "out"
    code, seconds = Fork(main, [*TRAIN, "--out", str(reference)]).end()
    assert code == 0
    rng = np.random.default_rng(8)
    latest = seconds
    killed = runs = finished = 0
    saved_before = False
    while killed < kills:
        runs += 1
        if Fork(main, [*TRAIN, "--out", str(out)]).kill_after(float(rng.uniform(0, latest))):
            killed += 1
        else:
            latest = sooner(latest, seconds)
        found = whole(out)
        # Nothing but work since the last checkpoint: once saved, a run is there to be continued.
        assert not saved_before or "checkpoint" in found or "row" in found
        saved_before = "checkpoint" in found
        if "row" in found and not saved_before:
            same_result(found["row"], reference)
            finished += 1
            out = folder / f"out-{finished}"
    code, _ = Fork(main, [*TRAIN, "--out", str(out)]).end()
    assert code == 0
    same_result(whole(out)["row"], reference)
    assert left_in(out) == left_in(reference) == {"result.json", "pruned", "agent.zip"}
    return runs - killed + 1


def same_result(row: ResultRow, reference: Path) -> None:
    """A run that was killed and continued ends in what an undisturbed one finds."""
    expected = ResultRow.from_json((reference / "result.json").read_text())
    for name in ("counts", "history", "evaluations", "val_accuracy", "params", "macs"):
        assert getattr(row, name) == getattr(expected, name)


def kill_prunings(kills: int, out: Path) -> int:
    """As `kill_trainings`."""
    code, seconds = Fork(main, [*PRUNE, "--out", str(out)]).end()
    assert code == 0
    expected = whole(out)["params"]
    rng = np.random.default_rng(9)
    latest = seconds
    killed = runs = 0
    while killed < kills:
        runs += 1
        if Fork(main, [*PRUNE, "--out", str(out)]).kill_after(float(rng.uniform(0, latest))):
            killed += 1
        else:
            latest = sooner(latest, seconds)
        found = whole(out)
        assert found.get("params", expected) == expected
    code, _ = Fork(main, [*PRUNE, "--out", str(out)]).end()
    assert code == 0
    assert whole(out)["params"] == whole(out)["row"].params == expected
    assert left_in(out) == {"result.json", "pruned"}
    return runs - killed + 1


def kill_benchmarks(kills: int, folder: Path) -> int:
    """As `kill_trainings`."""
    agents = ["--agents", "uniform,random-search", "--seeds", "10", "--evaluations", "60"]
    out = folder / "rows.jsonl"
    arguments = ["agents", *agents, "--out", str(out)]
    code, seconds = Fork(benchmarks, [*arguments[:-1], str(folder / "reference.jsonl")]).end()
    assert code == 0
    expected = {key: told(row) for key, row in read_rows(folder / "reference.jsonl").items()}
    rng = np.random.default_rng(10)
    latest = seconds
    killed = runs = turn = 0
    known: set[Any] = set()
    while killed < kills:
        runs += 1
        if Fork(benchmarks, arguments).kill_after(float(rng.uniform(0, latest))):
            killed += 1
        else:
            latest = sooner(latest, seconds)
        rows = read_rows(out)
        assert known <= set(rows), "a row was lost"
        known = set(rows)
        assert {key: told(row) for key, row in rows.items()}.items() <= expected.items()
        if len(known) == len(expected):
            turn, known = turn + 1, set()
            out = folder / f"rows-{turn}.jsonl"
            arguments[-1] = str(out)
    code, _ = Fork(benchmarks, arguments).end()
    assert code == 0
    assert {key: told(row) for key, row in read_rows(out).items()} == expected
    # The last run has removed what killed ones left of its files, and has no others.
    assert not [path for path in folder.iterdir() if path.name.startswith(f".{out.stem}-")]
    return runs - killed + 1


def told(row: AgentRow) -> tuple[Any, ...]:
    """What a row says that does not depend on the clock."""
    return row.history, row.counts, row.spent, row.failed, row.val_accuracy


@pytest.mark.slow
def test_a_fork_has_everything_imported() -> None:
    # A server says to nobody what it fails to import, and its forks would be slow.
    assert Fork(is_warm, []).end()[0] == 0


@pytest.mark.slow
def test_training_survives_many_kills(tmp_path: Path) -> None:
    kill_trainings(KILLS["train"], tmp_path)


@pytest.mark.slow
def test_pruning_survives_many_kills(tmp_path: Path) -> None:
    kill_prunings(KILLS["prune"], tmp_path / "out")


@pytest.mark.slow
def test_the_comparison_of_agents_survives_many_kills(tmp_path: Path) -> None:
    kill_benchmarks(KILLS["benchmarks"], tmp_path)


def test_the_kills_are_a_hundred() -> None:
    assert sum(KILLS.values()) == 100
