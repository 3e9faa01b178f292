"""Where the command line times networks, and what it says of a limit on latency."""

import json
import sys
from typing import Any

import pytest

from pruning_agents.cli.delivery import latency_verdict, result_table
from pruning_agents.cli.main import main
from pruning_agents.search.rows import ResultRow


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """The folder of a network that was pruned and timed in two threads, two images at once."""
    folder = tmp_path_factory.mktemp("pruned") / "out"
    timing = ["--runtime", "eager", "--latency-batch", "2", "--latency-threads", "2"]
    assert main(["prune", "--budget", "macs=0.5", *timing, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def row(pruned):
    return ResultRow.from_json((pruned / "result.json").read_text())


def test_a_row_says_where_and_how_its_network_was_timed(row):
    assert (row.latency_runtime, row.latency_batch, row.latency_threads) == ("eager", 2, 2)
    assert row.settings["latency_arguments"] == {"runtime": "eager", "batch": 2, "threads": 2}
    low, high = row.latency_interval
    assert row.latency_rounds == 36 and 0 < low <= high
    assert row.latency_predicted is None


def test_its_table_says_so_too(row):
    table = result_table(row)
    assert "latency, eager, batch 2, 2 threads" in list(table.columns[0].cells)
    assert "36 rounds in which both take turns" in str(table.caption)
    assert "95 % confidence" in str(table.caption)


def changed(row, **fields):
    return ResultRow.from_json(json.dumps(json.loads(row.to_json()) | fields))


def test_a_limit_on_latency_is_met_as_timed_or_missed_by_so_much(row):
    assert latency_verdict(row) is None
    limited: dict[str, Any] = {"budget": {"latency": 0.5}, "latency_interval": [0.4, 0.47]}
    assert latency_verdict(changed(row, **limited)) == (
        "Budget latency=0.5 is met as timed: at most 0.470."
    )
    limited |= {"latency_interval": [0.49, 0.53], "latency_predicted": 0.48}
    assert latency_verdict(changed(row, **limited)) == (
        "Budget latency=0.5 is missed by 0.030, as timed: at most 0.530, predicted 0.480."
    )


def test_a_row_of_before_is_shown_without_what_it_does_not_say(row):
    fields = ("runtime", "threads", "rounds", "interval", "predicted")
    old = changed(row, **{f"latency_{name}": None for name in fields}, latency_batch=256)
    table = result_table(old)
    assert "latency, eager, batch 256" in list(table.columns[0].cells)
    assert table.caption is None
    assert latency_verdict(changed(old, budget={"latency": 0.5})) is None


def test_evaluate_times_in_the_runtime_that_is_asked_for(pruned, capsys):
    assert main(["evaluate", str(pruned), "--latency-batch", "3", "--latency-threads", "1"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "eager, batch 3, 1 thread" in printed and "36 rounds" in printed


def test_a_runtime_that_is_not_installed_is_bad_input(pruned, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(pruned), "--runtime", "onnxruntime"])
    assert "pruning-env[export]" in " ".join(capsys.readouterr().err.split())


def test_a_table_without_the_budget_it_is_for_is_bad_input(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["prune", "--latency-table", "t.jsonl", "--out", str(tmp_path / "out")])
    assert "table='t.jsonl' is not allowed without the budget 'latency'" in " ".join(
        capsys.readouterr().err.split()
    )


@pytest.mark.slow
def test_a_budget_in_onnxruntime_is_predicted_by_a_table_and_timed_in_the_end(tmp_path, capsys):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    table = tmp_path / "table.jsonl"
    options = ["--budget", "latency=0.9", "--runtime", "onnxruntime", "--latency-table", str(table)]
    options += ["--latency-batch", "32"]  # of one image, little of the time is arithmetic
    more = ["--round-to", "4", "--evaluations", "20", "--no-progress", "--out", str(tmp_path / "o")]
    assert main(["train", "--agent", "random-search", *options, *more]) == 0
    row = ResultRow.from_json((tmp_path / "o" / "result.json").read_text())
    assert row.latency_runtime == "onnxruntime"
    assert row.latency_predicted is not None and row.latency_predicted <= 0.9
    assert len(table.read_text().splitlines()) == 91
    printed = " ".join(capsys.readouterr().out.split())
    assert "Budget latency=0.9 is" in printed and "predicted 0." in printed
