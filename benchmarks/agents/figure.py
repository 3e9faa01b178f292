"""Regret over evaluations, and at the end; drawn from rows only, so that it can be drawn again."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from benchmarks.plots import COLOURS, STYLES, save_figure
from pruning_agents.comparison.questions import Question, drawable
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.statistics import Interval, bootstrap

#: Beyond the colours, agents are told apart by marker; grey is for those that no seed changes.
_MARKERS = "osDv^P*X<>hp"
_GREY = "#666666"

#: Below it the axis is linear, so that a regret of 0 can be shown.
LINEAR = 0.02

#: Where nothing is below this, an axis needs no room for what is near 0.
FAR_FROM_ZERO = 2.5 * LINEAR
_TICKS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

#: Characters of an agent's name in a figure; longer ones lose their beginning.
_LONGEST_NAME = 26

#: Rows of the panel of ends at least, so that few agents do not lie far apart.
_FEWEST_ENDS = 5

#: Enough for a drawn interval; the table has more.
_RESAMPLES = 2000


def plot_agents(rows: Sequence[AgentRow], stem: Path) -> tuple[Path, Path]:
    """Draw each question's incumbents over evaluations and its ends; as PNG and SVG.

    Args:
        rows: of any tasks, agents and seeds.
        stem: path of the figures without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: when no row has a result.
    """
    asked = drawable(rows)
    looks, names = looks_of(asked), short_names(row.agent for row in rows)
    figure = Figure(figsize=(11.5, 5.6 * len(asked)), layout="constrained")
    panels = figure.subplots(len(asked), 2, width_ratios=(1.5, 1.0), squeeze=False)
    for (curves, ends), question in zip(panels, asked, strict=True):
        _draw_curves(curves, question, looks, names)
        _draw_ends(ends, question, looks, names)
    return save_figure(figure, stem)


def wrap(title: str, room: int = 76) -> str:
    """A title in lines of so many characters, which fit above a panel."""
    return textwrap.fill(title, room)


def short_names(agents: Iterable[str]) -> dict[str, str]:
    """What each agent is called in a figure: its name, or the end of a long one, no two alike."""
    names, most = set(agents), _LONGEST_NAME
    while True:
        short = {name: name if len(name) <= most else f"…{name[1 - most :]}" for name in names}
        if len(set(short.values())) == len(names):
            return short
        most += 1


def looks_of(asked: Sequence[Question]) -> dict[str, dict]:
    """How each agent is drawn, alike in all questions."""
    runs = [(agent, question.seeded(agent)) for question in asked for agent in question.runs]
    seeded = {agent for agent, seeded in runs if seeded}
    agents = tuple(dict.fromkeys(agent for agent, _ in runs))
    return agent_looks(agents, set(agents) - seeded)


def agent_looks(agents: Sequence[str], unseeded: Collection[str]) -> dict[str, dict]:
    """Colour, line and marker of each agent; grey for those that no seed changes."""
    looks, colours = {}, 0
    for place, agent in enumerate(agents):
        seeded = agent not in unseeded
        colour = COLOURS[colours % len(COLOURS)] if seeded else _GREY
        style = STYLES[(colours + colours // len(COLOURS)) % len(STYLES)] if seeded else "-"
        colours += seeded
        looks[agent] = {
            "color": colour,
            "linestyle": style,
            "marker": _MARKERS[place % len(_MARKERS)],
            "linewidth": 1.8 if seeded else 1.0,
        }
    return looks


def _draw_curves(
    axes: Axes, question: Question, looks: dict[str, dict], names: dict[str, str]
) -> None:
    grid = np.unique(np.geomspace(1, max(question.longest, 2), 120).round())
    for place, (agent, rows) in enumerate(question.runs.items()):
        within = grid[grid <= rows[0].allowed]
        values = np.stack([row.regret_at(within) for row in rows], axis=1)
        axes.plot(
            within,
            values.mean(axis=1),
            label=names[agent],
            markersize=5,
            markevery=(2 * place % 15, 15),
            drawstyle="steps-post",
            **looks[agent],
        )
        if len(rows) > 1:
            low, high = _band(values)
            axes.fill_between(
                within, low, high, step="post", color=looks[agent]["color"], alpha=0.15, linewidth=0
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(0.9, 1.1 * max(question.longest, 2))  # whole markers at both ends
    axes.set_xlabel("evaluations on search-val, counted by the environment")
    axes.set_ylabel(_measure(question) + " of the incumbent")
    axes.set_yscale("symlog", linthresh=LINEAR)
    tick_regrets(axes, "y")
    axes.set_title(wrap(f"{question.title}: mean, 95 % interval"), fontsize=10)
    legend_below(axes, axes.get_legend_handles_labels()[0], room=104)


def _band(values: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    intervals = [bootstrap([row], resamples=_RESAMPLES) for row in values]
    return [each.low for each in intervals], [each.high for each in intervals]


def _draw_ends(
    axes: Axes, question: Question, looks: dict[str, dict], names: dict[str, str]
) -> None:
    labels = []
    for place, (agent, rows) in enumerate(question.runs.items()):
        look = {"color": looks[agent]["color"], "marker": looks[agent]["marker"]}
        incumbents = question.regrets(agent, rows[0].allowed)
        _draw_end(axes, incumbents, place - 0.13, look, filled=True)
        final = question.final_regrets(agent)
        if final.size:
            _draw_end(axes, final, place + 0.2, look, filled=False)
        labels.append(f"{names[agent]} ({rows[0].allowed:,})")
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    middle, half = (len(labels) - 1) / 2, max(len(labels), _FEWEST_ENDS) / 2
    axes.set_ylim(middle + half, middle - half)  # the first on top
    axes.set_xscale("symlog", linthresh=LINEAR)
    tick_regrets(axes, "x")
    axes.set_xlabel(_measure(question))
    axes.set_title("At the end (evaluations allowed)", fontsize=10)
    shapes = [
        Line2D([], [], color="black", marker="o", linestyle="", label="incumbent"),
        Line2D([], [], color="black", marker="o", linestyle="", mfc="white", label="final policy"),
    ]
    legend_below(axes, shapes, room=60)


def _draw_end(
    axes: Axes, values: NDArray[np.float64], height: float, look: dict, *, filled: bool
) -> None:
    one = values.size == 1
    end = Interval(*[float(values[0])] * 3) if one else bootstrap([values], resamples=_RESAMPLES)
    axes.errorbar(
        end.estimate,
        height,
        xerr=None if one else [[end.estimate - end.low], [end.high - end.estimate]],
        linestyle="",
        markersize=6,
        capsize=3,
        mfc=look["color"] if filled else "white",
        **look,
    )


def legend_below(axes: Axes, handles: Sequence[Artist], room: int) -> None:
    """A legend outside the axes, because no corner is free for any number of agents.

    Args:
        axes: that it is of.
        handles: what it shows.
        room: characters that fit side by side.
    """
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = min(4, len(handles), max(1, room // (longest + 10)))
    axes.legend(
        handles=handles,
        ncols=columns,
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
    )


def tick_regrets(axes: Axes, which: str) -> None:
    """Ticks and ends of an axis of regrets that is linear near 0 and logarithmic beyond.

    Where nothing comes near 0, it becomes an ordinary axis, which leaves no room for what is not
    there.

    Args:
        axes: that have the axis, with everything drawn.
        which: "x" or "y".
    """
    axes.grid(True, alpha=0.3)
    axes.set_axisbelow(True)
    lowest = axes.dataLim.y0 if which == "y" else axes.dataLim.x0
    if lowest > FAR_FROM_ZERO:
        axes.set(**{f"{which}scale": "linear"})
        axes.autoscale_view()
        return
    axis = axes.yaxis if which == "y" else axes.xaxis
    low, high = axes.get_ylim() if which == "y" else axes.get_xlim()
    ticks = [tick for tick in _TICKS if tick <= max(low, high)]
    axis.set_ticks(ticks)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ends = (-0.1 * LINEAR, 1.3 * max(low, high, 0.05))
    if which == "y":
        axes.set_ylim(*ends)
    else:
        axes.set_xlim(*ends)


def _measure(question: Question) -> str:
    return "normalised regret" if question.anchored else "error on search-val"
