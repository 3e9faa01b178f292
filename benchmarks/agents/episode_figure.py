"""An episode in two figures: what goes from which group, and how sensitive what is left becomes.

The questions of figures 3 and 1 of "RL-Pruner" (Wang and Kindratenko, 2024). Drawn from an episode
on file only.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.agents.episode import Episode
from benchmarks.plots import COLOURS, STYLES, save_figure

#: Told apart in grey as well as with any colour blindness.
_MAP = "cividis"
_MARKERS = "osD^vP"

#: Above so many fields, numbers in them could not be read.
_MOST_NUMBERS = 240

#: Moments of an episode whose sensitivities are drawn as curves, its start and end among them.
_STAGES = 4


def plot_sparsity(episode: Episode, stem: Path) -> tuple[Path, Path]:
    """Draw the share removed of each group over the steps, and accuracy and size below it.

    Args:
        episode: with at least one step.
        stem: path of the figures, PNG and SVG, without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: the episode has no step.
    """
    kept = np.array([moment.counts for moment in _moments(episode)]).T
    removed = 100 * (1 - kept / np.array(episode.sizes)[:, None])
    figure = Figure(figsize=_size(episode, 2.6), layout="constrained")
    fields, curve = figure.subplots(
        2, 1, sharex=True, height_ratios=(max(0.28 * len(episode.groups), 2.0), 1.8)
    )
    _draw_fields(fields, removed, episode, "channels removed (%)", top=100.0)
    steps = np.arange(len(episode.moments))
    for place, (label, values) in enumerate(
        (
            ("search-val accuracy", [moment.accuracy for moment in episode.moments]),
            ("parameters / dense", [moment.params for moment in episode.moments]),
            ("MACs / dense", [moment.macs for moment in episode.moments]),
        )
    ):
        curve.plot(
            steps,
            100 * np.array(values),
            color=COLOURS[place],
            linestyle=("-", "--", ":")[place],
            marker=_MARKERS[place],
            markersize=4,
            label=label,
        )
    curve.set_ylim(0, 105)
    curve.set_ylabel("%")
    curve.set_xlabel("step")
    curve.grid(True, alpha=0.3)
    curve.legend(frameon=False, fontsize=8, loc="lower left")
    fields.set_title(f"{_title(episode)}: what is removed of each group", fontsize=10)
    return save_figure(figure, stem)


def plot_sensitivity(episode: Episode, stem: Path) -> tuple[Path, Path]:
    """Draw each group's sensitivity at some stages of an episode, and all of them as a map.

    Args:
        episode: with at least one step.
        stem: path of the figures, PNG and SVG, without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: the episode has no step.
    """
    shares = 100 * np.array([moment.sensitivity for moment in _moments(episode)]).T
    figure = Figure(figsize=_size(episode, 3.6), layout="constrained")
    curves, fields = figure.subplots(
        2, 1, height_ratios=(2.6, max(0.28 * len(episode.groups), 2.0))
    )
    places = np.arange(len(episode.groups))
    stages = np.unique(np.linspace(0, len(episode.moments) - 1, _STAGES).round().astype(int))
    for place, stage in enumerate(stages):
        params = 100 * episode.moments[stage].params
        curves.plot(
            places,
            shares[:, stage],
            color=COLOURS[place],
            linestyle=STYLES[place],
            marker=_MARKERS[place],
            markersize=5,
            label=f"step {stage}: {params:.0f} % of the parameters",
        )
    dense = max(len(places) // 24, 1)
    curves.set_xticks(places[::dense], episode.groups[::dense], rotation=30, ha="right", fontsize=8)
    curves.set_ylim(bottom=0)
    curves.set_ylabel("share of the sensitivity (%)")
    curves.grid(True, alpha=0.3)
    curves.legend(frameon=False, fontsize=8)
    curves.set_title(
        f"{_title(episode)}: Taylor importance per channel kept, measured anew at each step",
        fontsize=10,
    )
    _draw_fields(fields, shares, episode, "share of the sensitivity (%)", top=None)
    fields.set_xlabel("step")
    return save_figure(figure, stem)


def plot_probes(episode: Episode, stem: Path) -> tuple[Path, Path]:
    """Draw by how much the error rises when a tenth of one group goes, from three networks.

    Figure 1 of "RL-Pruner": how sensitive a layer is changes while the network is pruned.

    Args:
        episode: with probes.
        stem: path of the figures, PNG and SVG, without suffix.

    Returns:
        The two paths.

    Raises:
        ValueError: the episode has no probes.
    """
    if not episode.probes:
        raise ValueError(f"episode of {episode.agent} has no probes to draw; make it with --probe")
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(episode.groups))
    for place, probe in enumerate(episode.probes):
        kept = episode.moments[probe.step]
        share = 100 * sum(kept.counts) / sum(episode.sizes)
        axes.plot(
            places,
            100 * np.array(probe.drops),
            color=COLOURS[place],
            linestyle=STYLES[place],
            marker=_MARKERS[place],
            markersize=5,
            label=f"step {probe.step}: {share:.0f} % of the channels, "
            f"accuracy {100 * kept.accuracy:.1f} %",
        )
    every = max(len(places) // 24, 1)
    axes.set_xticks(places[::every], episode.groups[::every], rotation=30, ha="right", fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("rise of the error (points)")
    axes.grid(True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(f"{_title(episode)}: a tenth of one group alone goes", fontsize=10)
    return save_figure(figure, stem)


def _draw_fields(
    axes: Axes,
    values: NDArray[np.float64],
    episode: Episode,
    label: str,
    top: float | None,
) -> None:
    """A map (groups, steps), the first group on top, with the numbers where there is room."""
    highest = float(values.max()) if top is None else top
    image = axes.imshow(values, aspect="auto", cmap=_MAP, vmin=0.0, vmax=highest)
    axes.figure.colorbar(image, ax=axes, label=label, pad=0.01)
    names = [f"{name} ({size})" for name, size in zip(episode.groups, episode.sizes, strict=True)]
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylabel("group (its channels)")
    if values.size <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(values):
            colour = "black" if value > 0.55 * highest else "white"
            axes.text(
                column,
                row,
                f"{value:.0f}",
                ha="center",
                va="center",
                fontsize=7,
                color=colour,
            )


def _moments(episode: Episode) -> tuple:
    if len(episode.moments) < 2:
        raise ValueError(f"episode of {episode.agent} has no step to draw")
    return episode.moments


def _size(episode: Episode, more: float) -> tuple[float, float]:
    return 9.0, more + 0.5 + max(0.26 * len(episode.groups), 2.0)


def _title(episode: Episode) -> str:
    budget = episode.settings.get("budget", {})
    limits = ", ".join(f"{name} ≤ {limit:g}" for name, limit in budget.items())
    return ", ".join(filter(None, (episode.agent, episode.task, limits)))
