"""How much rewards are worth: which networks are asked, what the numbers mean, that it goes on."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import pytest

from benchmarks.proxies.figure import plot_proxies
from benchmarks.proxies.rows import Proxy, ProxyRow, read_rows
from benchmarks.proxies.run import run
from benchmarks.proxies.specification import BUDGETS, SMOKE, Allocation, Study, allocations
from benchmarks.proxies.table import to_markdown, worth
from benchmarks.reproduce.specification import Recovery
from pruning_agents.search.rows import append_row, provenance


def rows(said: list[float], after: list[float]) -> list[ProxyRow]:
    origin = provenance("a command", "cpu")
    return [
        ProxyRow(
            task="digits-resnet8",
            allocation=Allocation({"macs": 0.5}, "random", "random-search", seed=number),
            training=Recovery(epochs=2),
            counts=(1, 2),
            proxies={"bn": Proxy(before, 100), "one": Proxy(0.5, 300)},
            val_accuracy=trained,
            test_accuracy=trained,
            training_seeds=1,
            minutes=1.0,
            provenance=origin,
        )
        for number, (before, trained) in enumerate(zip(said, after, strict=True))
    ]


def test_there_are_24_networks_for_each_budget_a_third_of_each_kind_and_none_twice() -> None:
    asked = allocations()
    kinds = collections.Counter((each.budget["macs"], each.kind) for each in asked)
    assert set(kinds.values()) == {8} and len(kinds) == 3 * len(BUDGETS)
    assert len({each.key for each in asked}) == len({each.slug for each in asked}) == len(asked)


@pytest.mark.parametrize(
    ("said", "tau", "regret"),
    [
        ([0.1, 0.2, 0.3, 0.4], 1.0, 0.0),
        ([0.4, 0.3, 0.2, 0.1], -1.0, 0.3),
        ([0.1, 0.2, 0.4, 0.3], 2 / 3, 0.1),
    ],
)
def test_order_and_regret(said: list[float], tau: float, regret: float) -> None:
    found = worth(rows(said, [0.5, 0.6, 0.7, 0.8]), "bn")
    assert found.tau == pytest.approx(tau)
    assert found.regret == pytest.approx(regret)
    assert found.image_passes == 100
    assert -1 <= found.interval[0] <= found.tau <= found.interval[1] <= 1


def test_two_networks_have_no_order() -> None:
    with pytest.raises(ValueError, match="2 networks"):
        worth(rows([0.1, 0.2], [0.1, 0.2]), "bn")


def test_rows_come_back_and_a_table_and_a_figure_are_made_of_them(tmp_path: Path) -> None:
    written = rows([0.1, 0.2, 0.4, 0.3], [0.5, 0.6, 0.7, 0.8])
    for row in written:
        append_row(tmp_path / "rows.jsonl", row)
    read = list(read_rows(tmp_path / "rows.jsonl").values())
    assert read == written
    assert "| bn | 0.67 (" in to_markdown(read)
    assert all(path.stat().st_size > 1000 for path in plot_proxies(read, tmp_path / "figure"))
    with pytest.raises(ValueError, match="no budget"):
        plot_proxies(read[:2], tmp_path / "figure")


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_stopped_and_finds_the_same(tmp_path: Path) -> None:
    study: Study = dataclasses.replace(SMOKE, allocations=SMOKE.allocations[2:5])
    whole = list(run(study, tmp_path / "whole.jsonl", "a command"))
    first = list(run(study, tmp_path / "parts.jsonl", "a command", networks=2))
    rest = list(run(study, tmp_path / "parts.jsonl", "a command"))
    assert (len(first), len(rest)) == (2, 1)
    assert list(run(study, tmp_path / "parts.jsonl", "a command")) == []
    for one, other in zip(whole, [*first, *rest], strict=True):
        assert (one.counts, one.proxies) == (other.counts, other.proxies)
        assert one.test_accuracy == other.test_accuracy
    assert {row.allocation.kind for row in whole} == {"rule", "random", "searched"}
