"""The demonstration with few evaluations, and the table and figure it draws from rows."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.demo import METHODS, DemoSettings, run_demo
from benchmarks.plots import incumbent_at, plot_comparison
from benchmarks.tables import comparison_table, to_markdown
from pruning_agents.search.rows import read_rows
from pruning_env.tasks.storage import load_pruned

EVALUATIONS = 15


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(folder, rows, what was printed) of a demonstration with two seeds."""
    out, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    settings = DemoSettings(evaluations=EVALUATIONS, seeds=2, out=out)
    rows = run_demo(settings, "python -m benchmarks demo", Console(file=printed, width=200))
    return out, rows, printed.getvalue()


def test_all_methods_are_compared_with_the_dense_network(demo):
    _, rows, _ = demo
    assert [(row.agent, row.seed) for row in rows] == [
        ("dense", 0),
        ("uniform", 0),
        ("random-search", 0),
        ("random-search", 1),
        ("rl-pruner", 0),
        ("rl-pruner", 1),
    ]


def test_searches_spend_the_same_number_of_evaluations(demo):
    _, rows, _ = demo
    spent = {row.agent: row.evaluations for row in rows}
    assert spent == {
        "dense": 0,
        "uniform": 1,
        "random-search": EVALUATIONS,
        "rl-pruner": EVALUATIONS,
    }


def test_results_keep_the_budget_and_the_dense_row_is_the_dense_network(demo):
    _, rows, _ = demo
    dense = rows[0]
    assert dense.counts == dense.sizes and dense.latency_ratio == 1.0
    assert dense.test_accuracy == dense.dense_test_accuracy >= 0.97
    for row in rows[1:]:
        assert row.params_ratio <= 0.25
        assert row.params == round(row.params_ratio * dense.params)
        assert row.latency_ms > 0 and 0 <= row.test_accuracy <= 1


def test_rows_on_disk_are_the_rows_and_every_result_has_its_model(demo):
    out, rows, _ = demo
    assert read_rows(out / "rows.jsonl") == rows
    for row in rows[1:]:
        model = load_pruned(out / f"{row.agent}-seed{row.seed}" / "pruned")
        assert sum(each.numel() for each in model.parameters()) == row.params


def test_the_table_is_printed_and_written_with_what_limits_it(demo):
    out, _, printed = demo
    markdown = (out / "table.md").read_text()
    for text in (printed, markdown):
        assert all(method in text for method in METHODS)
        assert "too few to rank methods" in text.replace("\n", " ")
    assert str(out) in printed


def test_figures_are_written(demo):
    out, _, _ = demo
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (out / "figure.svg").read_bytes()


def test_a_second_demonstration_in_a_folder_replaces_the_first(demo, tmp_path):
    out = shutil.copytree(demo[0], tmp_path / "demo")
    settings = DemoSettings(evaluations=2, seeds=1, out=out)
    rows = run_demo(settings, "again", Console(file=io.StringIO()))
    assert read_rows(out / "rows.jsonl") == rows


def test_one_seed_is_called_an_illustration(demo):
    _, rows, _ = demo
    assert "One seed: an illustration" in comparison_table(rows[:3]).caption


def test_the_table_shows_means_and_ranges_of_accuracies(demo):
    _, rows, _ = demo
    pair = [
        dataclasses.replace(rows[2], val_accuracy=accuracy, test_accuracy=None)
        for accuracy in (0.5, 0.7)
    ]
    line = comparison_table(pair).lines[0]
    assert line[2] == "60.0 (50.0-70.0)"
    assert line[3] == "-"
    assert "| random-search | 15 | 60.0 (50.0-70.0) | - |" in to_markdown(comparison_table(pair))


def test_rows_of_different_questions_make_no_table(demo):
    _, rows, _ = demo
    with pytest.raises(ValueError, match="several tasks or budgets"):
        comparison_table([rows[1], dataclasses.replace(rows[1], budget={"params": 0.5})])
    with pytest.raises(ValueError, match="rows is empty"):
        comparison_table([])


def test_seen_validation_images_are_admitted_below_the_table(demo):
    _, rows, _ = demo
    seen = dataclasses.replace(rows[1], val_seen=True)
    assert "trained on search-val images" in comparison_table([seen]).caption
    assert "trained on search-val images" not in comparison_table(rows).caption


def test_an_incumbent_is_what_was_best_so_far(demo):
    _, rows, _ = demo
    row = dataclasses.replace(rows[2], history=((3, 0.4), (10, 0.6)))
    curve = incumbent_at(row, np.array([1, 2, 3, 9, 10, 99]))
    assert np.array_equal(curve, [np.nan, np.nan, 0.4, 0.4, 0.6, 0.6], equal_nan=True)


def test_a_method_without_a_result_at_first_can_be_drawn(demo, tmp_path):
    _, rows, _ = demo
    late = [dataclasses.replace(row, history=((14, row.val_accuracy),)) for row in rows]
    for path in plot_comparison(late, tmp_path / "late"):
        assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["demo", "--evaluations", "0"], "--evaluations"),
        (["demo", "--seeds", "x"], "--seeds"),
        (["demo", "--seed", "-1"], "--seed"),
        (["demo", "--task", "nothing"], "--task"),
        ([], "COMMAND"),
    ],
)
def test_bad_input_is_refused_by_name(capsys, arguments, named):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
