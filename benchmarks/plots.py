"""Figures from result rows. They read rows only, so a figure can be drawn again from a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from pruning_agents.search.rows import ResultRow
from pruning_env.files import atomic_path

#: Okabe and Ito's palette, told apart with every common colour blindness; black is for dense.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
STYLES = ("--", ":", "-", "-.", (0, (5, 1)), (0, (1, 1)))
_HATCHES = ("", "///", "...", "xx", "\\\\", "++")


def plot_comparison(rows: Sequence[ResultRow], stem: Path) -> tuple[Path, Path]:
    """Draw incumbents over evaluations, and what is kept of each group; as PNG and SVG.

    Args:
        rows: of one task and budget; several seeds per method are drawn as mean and range.
        stem: path of the figures without suffix.

    Returns:
        The two paths.
    """
    searches = [row for row in rows if row.agent != "dense"]
    methods = tuple(dict.fromkeys(row.agent for row in searches))
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    curve, bars = figure.subplots(1, 2, width_ratios=(1.0, 1.3))
    _draw_incumbents(curve, searches, methods)
    _draw_kept(bars, searches, methods)
    budget = ", ".join(f"{name} ≤ {limit:g}" for name, limit in searches[0].budget.items())
    figure.suptitle(f"{searches[0].task}, {budget} of dense", fontsize=11)
    return save_figure(figure, stem)


def save_figure(figure: Figure, stem: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG; equal figures make equal files.

    Args:
        figure: what to write.
        stem: path without suffix; what follows a dot in its name stays.

    Returns:
        The two paths.
    """
    paths = stem.with_name(f"{stem.name}.png"), stem.with_name(f"{stem.name}.svg")
    # Ids in an SVG are hashes with this salt, and random without.
    with matplotlib.rc_context({"svg.hashsalt": stem.name}):
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with atomic_path(path) as temporary:
                figure.savefig(temporary, dpi=160, metadata=metadata)
    return paths


def _draw_incumbents(axes: Axes, rows: Sequence[ResultRow], methods: Sequence[str]) -> None:
    longest = max(row.evaluations for row in rows)
    grid = np.unique(np.geomspace(1, max(longest, 2), 400).round())
    for index, method in enumerate(methods):
        own = [row for row in rows if row.agent == method]
        curves = 100 * np.stack([incumbent_at(row, grid) for row in own])
        # Before every seed has something feasible, the mean would be over other seeds each time.
        complete = np.isfinite(curves).all(axis=0)
        if not complete.any():
            continue
        curves = curves[:, complete]
        x, colour = grid[complete], COLOURS[index % len(COLOURS)]
        axes.step(
            x,
            curves.mean(axis=0),
            where="post",
            color=colour,
            linestyle=STYLES[index % len(STYLES)],
            linewidth=2,
            label=method,
        )
        if len(own) > 1:
            low, high = curves.min(axis=0), curves.max(axis=0)
            axes.fill_between(x, low, high, step="post", color=colour, alpha=0.18, linewidth=0)
    axes.axhline(100 * rows[0].dense_val_accuracy, color="black", linewidth=1, linestyle=":")
    axes.annotate(
        "dense",
        (1, 100 * rows[0].dense_val_accuracy),
        xytext=(2, -3),
        textcoords="offset points",
        va="top",
        fontsize=9,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(1, longest)
    axes.set_xlabel("evaluations on search-val")
    axes.set_ylabel("best feasible search-val accuracy (%)")
    seeds = max(sum(row.agent == method for row in rows) for method in methods)
    axes.set_title("Mean and range of seeds" if seeds > 1 else "One seed", fontsize=10)
    axes.grid(True, alpha=0.3)
    axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(0.0, 0.93))


def incumbent_at(row: ResultRow, evaluations: NDArray[np.floating]) -> NDArray[np.float64]:
    """(N,) search-val accuracy of the best found within each number (N,) of evaluations.

    NaN before the first feasible one. A search that ended early keeps what it had.
    """
    spent = np.array([at for at, _ in row.history])
    best = np.array([np.nan, *(accuracy for _, accuracy in row.history)])
    return best[np.searchsorted(spent, evaluations, side="right")]


def _draw_kept(axes: Axes, rows: Sequence[ResultRow], methods: Sequence[str]) -> None:
    """Of several seeds, the one with the best search-val accuracy."""
    groups = rows[0].groups
    positions = np.arange(len(groups))
    width = 0.8 / len(methods)
    for index, method in enumerate(methods):
        best = max((row for row in rows if row.agent == method), key=lambda row: row.val_accuracy)
        axes.bar(
            positions + (index - (len(methods) - 1) / 2) * width,
            100 * np.array(best.counts) / np.array(best.sizes),
            width=width,
            color=COLOURS[index % len(COLOURS)],
            edgecolor="white",
            hatch=_HATCHES[index % len(_HATCHES)],
            label=f"{method} ({100 * best.val_accuracy:.1f} %)",
        )
    axes.set_xticks(
        positions,
        [f"{name} ({size})" for name, size in zip(groups, rows[0].sizes, strict=True)],
        rotation=90 if len(groups) > 8 else 20,
        fontsize=8,
    )
    axes.set_xlabel("group (its channels in the dense network)")
    axes.set_ylabel("channels kept (%)")
    # Room above full bars for the legend.
    axes.set_ylim(0, 118)
    axes.set_yticks(range(0, 101, 20))
    axes.set_title("Best result of each method (search-val accuracy)", fontsize=10)
    axes.grid(True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9, loc="upper center", ncols=len(methods))
