"""What figures of agents show, and where: for few and many agents, with short and long names."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from benchmarks.agents import figure as agents
from benchmarks.agents import profiles, tradeoff
from pruning_agents.comparison.rows import AgentRow, rows_of_files
from tests.helpers.paths import ROOT

DRAWINGS: dict[str, Any] = {
    "agents": (agents, agents.plot_agents),
    "profiles": (profiles, profiles.plot_profiles),
    "tradeoff": (tradeoff, tradeoff.plot_tradeoff),
}


@functools.cache
def recorded() -> tuple[AgentRow, ...]:
    """Rows of one question in the repository."""
    rows = rows_of_files([ROOT / "benchmarks/results/agents-tabular.jsonl"])
    same = [row for row in rows if row.settings == rows[0].settings and not row.failed]
    return tuple(row for row in same if row.seed < 4)


def rows_of(number: int, long: bool) -> list[AgentRow]:
    known = list(dict.fromkeys(row.agent for row in recorded()))[-number:]
    prefix = "laboratory.research.pruning_agents:A" if long else ""
    return [
        dataclasses.replace(row, agent=f"{prefix}{row.agent}")
        for row in recorded()
        if row.agent in known
    ]


def drawn(kind: str, rows: list[AgentRow], monkeypatch: pytest.MonkeyPatch) -> Figure:
    """The figure as it would be saved, laid out."""
    module, draw = DRAWINGS[kind]
    figures: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda figure, stem: figures.append(figure))
    draw(rows, Path("unused"))
    figures[0].draw_without_rendering()
    return figures[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1, 2, 12])
@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("kind", DRAWINGS)
def test_panels_are_wide_and_everything_written_is_inside_the_figure(
    kind: str, long: bool, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(number, long)
    figure = drawn(kind, rows, monkeypatch)
    paper = figure.bbox
    legends = []
    for axes in figure.axes:
        assert axes.get_position().width > 0.13
        written = [*axes.get_yticklabels(), axes.title, axes.xaxis.label]
        if (legend := axes.get_legend()) is not None:
            written.append(legend)  # type: ignore[arg-type]
            legends += [text.get_text() for text in legend.get_texts()]
        for each in written:
            box = each.get_window_extent()
            assert paper.x0 <= box.x0 <= box.x1 <= paper.x1, each
    said = [label.partition(" ")[0] for label in legends]
    for name in agents.short_names(row.agent for row in rows).values():
        assert said.count(name) == 1


@pytest.mark.parametrize("number", [1, 2, 12])
def test_the_panel_of_ends_has_each_agents_marks_beside_its_name(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = rows_of(number, False)
    curves, ends = drawn("agents", rows, monkeypatch).axes
    names = [label.get_text().partition(" ")[0] for label in ends.get_yticklabels()]
    assert sorted(names) == sorted({row.agent for row in rows}) and len(names) == number
    low, high = sorted(ends.get_ylim())
    heights = [np.asarray(line.get_ydata(), dtype=float)[0] for line in ends.lines]
    for place in ends.get_yticks():
        assert low + 0.4 < place < high - 0.4
        # A quarter of a row away at most, in a panel of at least five rows.
        assert min(abs(height - place) for height in heights) < 0.25
    assert high - low >= 5 and all(low < height < high for height in heights)
    left, right = curves.get_xlim()
    for line in curves.lines:
        x = np.asarray(line.get_xdata(), dtype=float)
        assert left < x.min() and x.max() < right


def test_shortened_names_stay_different() -> None:
    long = [f"a.module.of.{place}:TheVerySameNameOfAnAgentThatIsLong" for place in range(3)]
    short = agents.short_names([*long, "cem"])
    assert short["cem"] == "cem" and len(set(short.values())) == 4
    assert all(len(short[name]) < len(name) for name in long)
