"""Accuracy of incumbents over their MACs and parameters, and who is on the Pareto front.

Drawn from rows only. Rows of one task with several budgets share their panels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from benchmarks.agents.figure import agent_looks, legend_below, short_names
from benchmarks.plots import save_figure
from pruning_agents.comparison.rows import AgentRow, settings_text

_COSTS = {"macs_ratio": "MACs / dense (%)", "params_ratio": "parameters / dense (%)"}


def plot_tradeoff(rows: Sequence[AgentRow], stem: Path) -> tuple[Path, Path]:
    """Draw every incumbent by what it costs and how good it is; as PNG and SVG.

    Args:
        rows: of any tasks, agents and seeds.
        stem: path of the figures without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: when no row has a result.
    """
    good = [row for row in rows if not row.failed]
    if not good:
        raise ValueError("rows have no result to draw")
    tasks: dict[tuple[str, str], list[AgentRow]] = {}
    for row in good:
        tasks.setdefault((row.task, _other_settings(row)), []).append(row)
    agents = tuple(dict.fromkeys(row.agent for row in good))
    looks = agent_looks(agents, {row.agent for row in good if not row.seeded})
    names = short_names(agents)
    figure = Figure(figsize=(11.5, 4.9 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(tasks), 2, sharey="row", squeeze=False)
    for pair, ((task, settings), own) in zip(panels, tasks.items(), strict=True):
        found = [row for row in own if row.feasible]
        for axes, (cost, label) in zip(pair, _COSTS.items(), strict=True):
            _draw(axes, found, cost, looks)
            axes.set_xlabel(label)
        pair[0].set_ylabel("search-val accuracy of the incumbent (%)")
        pair[0].set_title(", ".join(filter(None, (task, settings))), fontsize=10, loc="left")
        shapes = [
            Line2D([], [], **{**looks[agent], "linestyle": ""}, mfc="none", label=names[agent])
            for agent in dict.fromkeys(row.agent for row in found)
        ]
        shapes.append(Line2D([], [], color="black", linewidth=1.2, label="Pareto front"))
        figure.align_ylabels()
        legend_below(pair[0], shapes, room=96)
    return save_figure(figure, stem)


def pareto_front(costs: ArrayLike, values: ArrayLike) -> NDArray[np.intp]:
    """Indices of the points that no other beats, by rising cost.

    A point is beaten by one that costs no more and is worth no less, and differs in one of the two;
    of equal points the first is taken.

    Args:
        costs: (N,) of which less is better.
        values: (N,) of which more is better.
    """
    costs, values = np.asarray(costs, dtype=np.float64), np.asarray(values, dtype=np.float64)
    front, best = [], -np.inf
    for index in np.lexsort((-values, costs)):
        if values[index] > best:
            front.append(index)
            best = values[index]
    return np.array(front, dtype=np.intp)


def _draw(axes: Axes, rows: Sequence[AgentRow], cost: str, looks: dict[str, dict]) -> None:
    for agent in dict.fromkeys(row.agent for row in rows):
        own = [row for row in rows if row.agent == agent]
        axes.plot(
            [100 * getattr(row, cost) for row in own],
            [100 * (row.val_accuracy or 0.0) for row in own],
            linestyle="",
            marker=looks[agent]["marker"],
            color=looks[agent]["color"],
            markerfacecolor="none",
            markersize=6,
            alpha=0.8,
        )
    if rows:
        costs = np.array([100 * getattr(row, cost) for row in rows])
        values = np.array([100 * (row.val_accuracy or 0.0) for row in rows])
        front = pareto_front(costs, values)
        axes.step(costs[front], values[front], where="post", color="black", linewidth=1.2, zorder=0)
    axes.grid(True, alpha=0.3)
    axes.set_axisbelow(True)


def _other_settings(row: AgentRow) -> str:
    """Settings without the budget, in words."""
    others = {name: value for name, value in row.settings.items() if name != "budget"}
    return settings_text(others)[1:-1].replace('"', "").replace(": ", "=")
