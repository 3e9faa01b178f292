"""`python -m benchmarks latency`: its rows and its page, on a network of a known speed."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.latency import run
from pruning_env.evaluation.latency_model import LatencyModel
from pruning_env.evaluation.latency_table import LatencyTable


def test_a_row_has_the_error_of_its_table_and_the_page_says_how_to_repeat_it(
    tmp_path, monkeypatch, capsys
):
    asked = []

    def table(path, graph, dense, images, runtime, *, floors, round_to, progress):
        asked.append((path, runtime, round_to, floors.max()))
        return LatencyTable(LatencyModel(graph, 8, np.zeros(7)), 0.0425, 0.09)

    monkeypatch.setattr(run, "latency_table", table)
    out, tables = tmp_path / "latency.jsonl", tmp_path / "tables"
    arguments = ["latency", "--tasks", "digits-resnet8", "--runtimes", "eager", "--out", str(out)]
    assert main([*arguments, "--round-to", "1", "4", "--tables", str(tables)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["round_to"] for row in rows] == [1, 4] == [each[2] for each in asked]
    assert asked[1][0] == tables / "digits-resnet8-eager-1-4.jsonl" and asked[1][3] == 4
    first = rows[0]
    assert (first["error"], first["block"], first["runtime"]) == (0.0425, 8, "eager")
    assert [half[0] for half in first["halves"]] == [0, 1, 2, 4]  # 16 channels have no 8 - 8
    assert [half[1] for half in first["halves"]] == sorted(
        (half[1] for half in first["halves"]), reverse=True
    )
    page = out.with_suffix(".md").read_text()
    assert "| digits-resnet8 | eager | 4 | 4.2% | 9.0% | 8 |" in page
    assert "| digits-resnet8 | eager | half - 4 |" in page
    assert "python -m benchmarks latency --tasks digits-resnet8" in page
    assert "digits-resnet8, eager, round_to 1: error 4.2%" in capsys.readouterr().out


def test_an_unknown_runtime_is_bad_input(capsys):
    with pytest.raises(SystemExit):
        main(["latency", "--runtimes", "tvm"])
    assert "'tvm'" in capsys.readouterr().err
