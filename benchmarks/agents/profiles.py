"""Performance profiles: for every regret, the share of an agent's runs that have less.

Drawn from rows only (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.agents.figure import (
    FAR_FROM_ZERO,
    LINEAR,
    legend_below,
    looks_of,
    short_names,
    tick_regrets,
    wrap,
)
from benchmarks.plots import save_figure
from pruning_agents.comparison.questions import Question, drawable
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.statistics import bootstrap, performance_profile

_RESAMPLES = 1000
_THRESHOLDS = 160


def plot_profiles(rows: Sequence[AgentRow], stem: Path) -> tuple[Path, Path]:
    """Draw the profile of each agent's regrets, after all that it was allowed; as PNG and SVG.

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
    figure = Figure(figsize=(8.0, 5.0 * len(asked)), layout="constrained")
    panels = figure.subplots(len(asked), 1, squeeze=False)[:, 0]
    for axes, question in zip(panels, asked, strict=True):
        _draw(axes, question, looks, names)
    return save_figure(figure, stem)


def _draw(axes: Axes, question: Question, looks: dict[str, dict], names: dict[str, str]) -> None:
    regrets = {
        agent: question.regrets(agent, own[0].allowed) for agent, own in question.runs.items()
    }
    every = np.concatenate(list(regrets.values()))
    if every.min() > FAR_FROM_ZERO:
        thresholds = np.linspace(0.95 * every.min(), 1.05 * every.max(), _THRESHOLDS)
    else:
        above = np.geomspace(LINEAR / 8, max(1.2 * every.max(), LINEAR), _THRESHOLDS)
        thresholds = np.array([0.0, *above])
    for place, (agent, values) in enumerate(regrets.items()):
        label = f"{names[agent]} ({question.runs[agent][0].allowed:,})"
        look = {**looks[agent], "markevery": (8 * place % 40, 40), "markersize": 5}
        profile = performance_profile([-values], -thresholds)
        axes.plot(thresholds, profile, label=label, **look)
        if values.size > 1:
            bands = [
                bootstrap([(values < each).astype(np.float64)], resamples=_RESAMPLES)
                for each in thresholds
            ]
            low, high = [band.low for band in bands], [band.high for band in bands]
            axes.fill_between(
                thresholds, low, high, color=looks[agent]["color"], alpha=0.12, linewidth=0
            )
    axes.set_xscale("symlog", linthresh=LINEAR)
    tick_regrets(axes, "x")
    axes.invert_xaxis()  # better is to the right
    axes.set_ylim(-0.02, 1.04)
    axes.set_xlabel(
        "normalised regret of the incumbent (0: optimum, 1: random policy)"
        if question.anchored
        else "error of the incumbent on search-val"
    )
    axes.set_ylabel("share of runs with less")
    axes.set_title(
        wrap(f"{question.title}: all evaluations allowed, 95 % interval", 92), fontsize=10
    )
    legend_below(axes, axes.get_legend_handles_labels()[0], room=134)
