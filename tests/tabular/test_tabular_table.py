"""The table's file, and the script that makes it."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.serialised import facts_from_json, facts_to_json
from pruning_env.process.rounding import WidthUnits
from pruning_env.tabular import enumerate as script
from pruning_env.tabular.sweep import Sweep
from pruning_env.tabular.table import RECOVERIES, SHIPPED, load_table, save_table
from pruning_env.tasks.registry import get_task
from tests.helpers.small import small_evaluator


@pytest.fixture(scope="module")
def table():
    return load_table()


@pytest.fixture
def few_checks(monkeypatch):
    monkeypatch.setattr(script, "CHECKED", 3)


@pytest.fixture(scope="module")
def graph():
    task = get_task("digits-resnet8")
    return ChannelGraph.trace(task.model(), task.example_input())


def test_the_shipped_table_is_large_in_entries_and_small_in_bytes(table, graph):
    assert table.size >= 40_000 and SHIPPED.stat().st_size < 3_000_000
    table.check(graph)
    assert table.provenance["task"] == "digits-resnet8"
    for key in ("command", "versions", "hardware", "seed", "weights_sha256", "data_sha256"):
        assert table.provenance[key]
    for key in ("ranking_sha256", "graph_fingerprint", "git_commit", "test_split"):
        assert table.provenance[key]


def test_every_configuration_of_the_grid_has_its_place(table, graph):
    counts = table.counts(np.arange(table.size))
    assert len(np.unique(counts, axis=0)) == table.size
    assert np.array_equal(table.index(counts), np.arange(table.size))
    units = WidthUnits(graph.sizes, table.round_to)
    assert all(units.reachable(row) for row in counts[::997])
    assert table.counts(0).tolist() == units.floors.tolist()
    assert table.counts(table.size - 1).tolist() == graph.sizes.tolist()
    for row in ([4] * 6, [5] * 5, [5, 5, 5, 5, 5, 63], np.full(6, 5.0)):
        with pytest.raises(ValueError, match="counts"):
            table.index(np.array(row))


def test_costs_are_the_graphs(table, graph):
    counts = table.counts(np.arange(table.size))
    assert np.array_equal(table.params, graph.params_at(counts))
    assert np.array_equal(table.macs, graph.macs_at(counts))


def test_results_are_within_their_ranges_and_the_dense_one_is_good(table):
    for recovery in RECOVERIES:
        results = table.results[recovery]
        assert results.val_correct.max() <= table.val_images
        assert results.test_correct.max() <= table.test_images
        assert (results.val_loss > 0).all() and np.isfinite(results.val_loss).all()
        assert results.val_correct[-1] >= 0.97 * table.val_images
    dense = [table.results[recovery].val_loss[-1] for recovery in RECOVERIES]
    assert dense[0] == dense[1]  # judged without recovery


@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, keep):
    content = SHIPPED.read_bytes()
    path = tmp_path / "short.npz"
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else keep])
    with pytest.raises(ValueError, match=r"short\.npz"):
        load_table(path)


@pytest.mark.parametrize("where", np.linspace(0.01, 0.995, 8))
def test_a_damaged_file_is_refused(tmp_path, where):
    content = bytearray(SHIPPED.read_bytes())
    place = int(where * len(content))
    content[place : place + 4] = bytes(byte ^ 0xFF for byte in content[place : place + 4])
    path = tmp_path / "damaged.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz"):
        load_table(path)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, a=np.zeros(3))
    with pytest.raises(ValueError, match=r"other\.npz"):
        load_table(path)
    lone = io.BytesIO()
    np.save(lone, np.zeros(3))
    path.write_bytes(lone.getvalue())
    with pytest.raises(ValueError, match=r"other\.npz"):
        load_table(path)
    with pytest.raises(FileNotFoundError):
        load_table(tmp_path / "none.npz")


def test_changed_numbers_are_refused(tmp_path, table):
    path = tmp_path / "changed.npz"
    save_table(table, path)
    assert load_table(path).provenance == table.provenance
    with np.load(path) as archive:
        arrays = dict(archive)
    arrays["bn_val_correct"][7] += 1
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="checksum"):
        load_table(path)


def test_a_column_of_another_length_is_refused(tmp_path, table):
    path = tmp_path / "short.npz"
    save_table(dataclasses.replace(table, params=table.params[:-1]), path)
    with pytest.raises(ValueError, match="132496 configurations"):
        load_table(path)


def test_a_table_of_another_network_or_ranking_is_refused(table, graph):
    with pytest.raises(ValueError, match="fingerprint"):
        table.check(small_evaluator().graph)
    with pytest.raises(ValueError, match="ranking"):
        dataclasses.replace(table, scores=table.scores[::-1]).check(graph)


def test_a_killed_enumeration_goes_on_where_it_was_and_ends_in_the_same_table(
    tmp_path, monkeypatch, few_checks
):
    # A grid of 1 x 1 x 2 x 2 x 3 x 3, which the script compares with the evaluator by itself.
    whole = script.enumerate_table(tmp_path / "whole.part.npz", 31)
    assert whole.size == 36
    judge, calls = Sweep.judge, []

    def interrupted(sweep, *rest):
        calls.append(rest[0])
        if len(calls) == 18:
            raise KeyboardInterrupt
        return judge(sweep, *rest)

    monkeypatch.setattr(script, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(Sweep, "judge", interrupted)
    partial = tmp_path / "killed.part.npz"
    with pytest.raises(KeyboardInterrupt):
        script.enumerate_table(partial, 31)
    again = script.enumerate_table(partial, 31)
    assert len(calls) == 2 * 12 + 1  # the interrupted one twice
    for recovery in RECOVERIES:
        for name, column in vars(whole.results[recovery]).items():
            assert np.array_equal(column, getattr(again.results[recovery], name))
    with pytest.raises(ValueError, match="another run"):
        script.enumerate_table(partial, 30)
    partial.write_bytes(partial.read_bytes()[:500])
    with pytest.raises(ValueError, match="damaged"):
        script.enumerate_table(partial, 31)


def test_the_command_writes_a_table_that_loads(tmp_path, few_checks):
    out = tmp_path / "small.npz"
    script.main(["--round-to", "40", "--out", str(out)])
    small = load_table(out)
    assert small.shape == (1, 1, 1, 1, 2, 2) and small.round_to == 40
    assert "--round-to 40" in small.provenance["command"]
    assert list(tmp_path.iterdir()) == [out]


def test_the_graph_in_the_table_is_the_one_that_tracing_finds() -> None:
    table = load_table()
    task = get_task(table.provenance["task"])
    traced = ChannelGraph.trace(task.model(), task.example_input())
    assert table.facts is not None
    assert facts_to_json(table.facts) == facts_to_json(traced.facts)
    assert ChannelGraph(table.facts).fingerprint == traced.fingerprint


def test_facts_of_another_form_are_refused() -> None:
    table = load_table()
    assert table.facts is not None
    damaged = facts_to_json(table.facts)
    del damaged["slots"]
    with pytest.raises(ValueError, match="slots"):
        facts_from_json(damaged)
