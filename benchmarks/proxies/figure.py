"""The figure: what each proxy says of a network, against what the network is once trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.plots import COLOURS, save_figure
from benchmarks.proxies.rows import ProxyRow
from benchmarks.proxies.table import by_budget, worth

__all__ = ["plot_proxies"]

_MARKS = {"random": "o", "rule": "s", "searched": "^"}


def plot_proxies(rows: Sequence[ProxyRow], stem: Path) -> tuple[Path, Path]:
    """Draw one panel per budget and proxy, as PNG and SVG.

    Args:
        rows: Budgets of fewer than three networks are left out.
        stem: Path of the figures without suffix.

    Raises:
        ValueError: No budget has three networks.
    """
    budgets = {title: own for title, own in by_budget(rows).items() if len(own) >= 3}
    if not budgets:
        raise ValueError("rows: no budget has three networks or more")
    names = list(rows[0].proxies)
    figure = Figure(
        figsize=(2.3 * len(names) + 0.6, 2.6 * len(budgets) + 0.7), layout="constrained"
    )
    panels = figure.subplots(len(budgets), len(names), squeeze=False, sharey="row")
    for line, (title, own) in zip(panels, budgets.items(), strict=True):
        for panel, name in zip(line, names, strict=True):
            for colour, (kind, mark) in zip(COLOURS, _MARKS.items(), strict=False):
                chosen = [row for row in own if row.allocation.kind == kind]
                panel.scatter(
                    [100 * row.proxies[name].accuracy for row in chosen],
                    [100 * row.test_accuracy for row in chosen],
                    s=22,
                    color=colour,
                    marker=mark,
                    label=kind,
                    alpha=0.8,
                    linewidths=0,
                )
            panel.set_title(f"{name}: τ = {worth(own, name).tau:.2f}", fontsize=9)
            panel.tick_params(labelsize=8)
            panel.grid(alpha=0.2)
        line[0].set_ylabel(f"{title}\ntest after training, %", fontsize=8)
    for panel in panels[-1]:
        panel.set_xlabel("search-val, %", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return save_figure(figure, stem)
