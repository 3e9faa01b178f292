"""λ, cost and reward over evaluations, and the frontier of fixed prices; drawn from rows only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from benchmarks.constrained.findings import frontier
from benchmarks.constrained.rows import FIXED, LAGRANGIAN, ConstrainedRow, Rollout
from benchmarks.plots import COLOURS, STYLES, save_figure

_MARKERS = "osD^vP"


def plot_constrained(rows: Sequence[ConstrainedRow], stem: Path) -> tuple[Path, Path]:
    """Draw three curves per limit, and where the runs end; as PNG and SVG.

    Args:
        rows: of any methods and seeds, with the same settings.
        stem: path of the figures without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: no row is of PPOLagrangian.
    """
    budgets = sorted({row.number for row in rows if row.method == LAGRANGIAN})
    if not budgets:
        raise ValueError("rows have no run under a limit; a figure needs at least one")
    figure = Figure(figsize=(11.5, 8.0), layout="constrained")
    curves = figure.subplots(2, 2)
    drawings: tuple[tuple[Axes, str, Callable[[Rollout, float], float]], ...] = (
        (curves[0, 0], "multiplier λ", lambda rollout, _: rollout.multiplier),
        (curves[0, 1], "mean cost / limit", lambda rollout, limit: rollout.usage / limit),
        (
            curves[1, 0],
            "mean reward (points of accuracy to dense)",
            lambda rollout, _: rollout.reward,
        ),
    )
    for axes, label, value in drawings:
        for place, budget in enumerate(budgets):
            own = [row for row in rows if row.method == LAGRANGIAN and row.number == budget]
            _draw_curve(axes, own, value, place)
        axes.set_xlabel("evaluations (episodes, repeats counted)")
        axes.set_ylabel(label)
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(True, alpha=0.3)
    curves[0, 1].set_yscale("log")
    curves[0, 1].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    curves[0, 1].yaxis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    curves[0, 1].axhspan(0.95, 1.0, color="black", alpha=0.12, linewidth=0)
    curves[0, 0].legend(frameon=False, fontsize=9)
    _draw_frontier(curves[1, 1], rows, budgets)
    seeds = max(sum(r.number == b and r.method == LAGRANGIAN for r in rows) for b in budgets)
    figure.suptitle(
        f"PPOLagrangian on CNNPruneTabular-v0: median and 5 % to 95 % of {seeds} seeds", fontsize=11
    )
    return save_figure(figure, stem)


def _draw_curve(
    axes: Axes,
    rows: Sequence[ConstrainedRow],
    value: Callable[[Rollout, float], float],
    place: int,
) -> None:
    episodes = [rollout.episodes for rollout in rows[0].history]
    values = np.array([[value(rollout, row.number) for rollout in row.history] for row in rows])
    low, middle, high = np.percentile(values, [5, 50, 95], axis=0)
    colour = COLOURS[place % len(COLOURS)]
    axes.plot(
        episodes,
        middle,
        color=colour,
        linestyle=STYLES[place % len(STYLES)],
        marker=_MARKERS[place % len(_MARKERS)],
        markevery=(5 * place, 15),
        markersize=5,
        linewidth=1.8,
        label=f"params ≤ {rows[0].number:g}",
    )
    axes.fill_between(episodes, low, high, color=colour, alpha=0.18, linewidth=0)


def _draw_frontier(axes: Axes, rows: Sequence[ConstrainedRow], budgets: Sequence[float]) -> None:
    usage, accuracy = frontier(rows)
    if usage.size:
        axes.plot(usage, 100 * accuracy, color="black", linewidth=1.2, label="hull of fixed prices")
        fixed = [row.policy for row in rows if row.method == FIXED]
        axes.plot(
            [each.usage for each in fixed],
            [100 * each.accuracy for each in fixed],
            linestyle="",
            marker="x",
            markersize=5,
            color="#666666",
            label="PPO at a fixed price",
        )
    for place, budget in enumerate(budgets):
        own = [row for row in rows if row.method == LAGRANGIAN and row.number == budget]
        axes.plot(
            [row.policy.usage for row in own],
            [100 * row.policy.accuracy for row in own],
            linestyle="",
            marker=_MARKERS[place % len(_MARKERS)],
            markersize=6,
            markerfacecolor="none",
            color=COLOURS[place % len(COLOURS)],
            label=f"PPOLagrangian, params ≤ {budget:g}",
        )
        axes.axvline(budget, color=COLOURS[place % len(COLOURS)], linewidth=0.8, linestyle=":")
    axes.set_xlabel("mean parameters / dense of the final policy")
    axes.set_ylabel("mean search-val accuracy (%)")
    axes.grid(True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
