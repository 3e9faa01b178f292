"""Result rows: what is written comes back, and a damaged file says so."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from pruning_agents.search.rows import ResultRow, append_row, provenance, read_rows


@pytest.fixture
def row():
    return ResultRow(
        agent="rl-pruner",
        task="digits-resnet8",
        seed=3,
        budget={"params": 0.25},
        settings={"recovery": "bn"},
        evaluations=100,
        history=((1, 0.5), (40, 0.75)),
        groups=("conv1", "conv2"),
        sizes=(16, 32),
        counts=(12, 4),
        val_accuracy=0.75,
        dense_val_accuracy=0.99,
        val_seen=False,
        test_accuracy=0.7,
        dense_test_accuracy=0.98,
        params=2500,
        params_ratio=0.25,
        macs=40_000,
        macs_ratio=0.4,
        latency_ms=1.5,
        dense_latency_ms=3.0,
        latency_ratio=0.5,
        latency_batch=256,
        wall_seconds=12.5,
        provenance=provenance("cnnprune train --agent rl-pruner"),
    )


def test_a_row_comes_back_equal(row, tmp_path):
    append_row(tmp_path / "rows.jsonl", row)
    assert read_rows(tmp_path / "rows.jsonl") == (row,)


def test_how_latency_was_timed_comes_back_and_is_none_in_rows_of_before(row, tmp_path):
    timed = dataclasses.replace(
        row,
        latency_runtime="onnxruntime",
        latency_threads=2,
        latency_rounds=36,
        latency_interval=(0.45, 0.55),
        latency_predicted=0.5,
    )
    assert ResultRow.from_json(timed.to_json()) == timed
    before = {k: v for k, v in json.loads(timed.to_json()).items() if k not in LATER}
    again = ResultRow.from_json(json.dumps(before))
    assert again == row and again.latency_interval is None


LATER = (
    *("latency_runtime", "latency_threads", "latency_rounds", "latency_interval"),
    *("latency_predicted", "image_passes", "allowed", "ended"),
)


def test_a_row_is_one_line_of_json(row):
    assert "\n" not in row.to_json()
    assert json.loads(row.to_json())["counts"] == [12, 4]


def test_rows_are_appended_in_order_and_folders_are_made(row, tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    for seed in range(3):
        append_row(path, dataclasses.replace(row, seed=seed))
    assert [each.seed for each in read_rows(path)] == [0, 1, 2]


def test_writers_that_append_to_one_file_at_once_do_not_mix_their_lines(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [dataclasses.replace(row, seed=seed) for seed in range(100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: append_row(path, each), rows))
    assert sorted(each.seed for each in read_rows(path)) == list(range(100))


def test_a_line_that_a_kill_cut_off_is_left_out_with_a_warning_and_spoils_no_other(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, row)
    with path.open("a") as file:
        file.write(row.to_json()[:50])
    append_row(path, row)
    with pytest.warns(UserWarning, match=r"rows\.jsonl:2 is not complete"):
        assert read_rows(path) == (row, row)


def test_a_line_that_is_no_row_is_refused_with_its_number(row, tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, row)
    with path.open("a") as file:
        file.write('{"agent": "uniform"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not a result row.*budget"):
        read_rows(path)


def test_numbers_that_json_does_not_know_are_refused(row):
    with pytest.raises(ValueError, match="JSON"):
        dataclasses.replace(row, latency_ms=float("nan")).to_json()


def test_provenance_says_what_ran_where():
    made = provenance("cnnprune train")
    assert made.command == "cnnprune train"
    assert {"python", "torch", "gymnasium", "stable-baselines3"} <= set(made.versions)
    assert "cores" in made.hardware and "threads" in made.hardware
    assert made.created.endswith("+00:00")
    assert made.commit is None or len(made.commit.removesuffix("-dirty")) == 40
