"""How much accuracy each group costs when channels are taken from it alone: measured, kept, drawn.

Measured on images of search-train, so that it is no evaluation of a search. Matplotlib is imported
only when a picture is asked for.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_agents.proposals.curves import rehearsed_curves
from pruning_env.process.dynamics import PruningDynamics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PROBES", "Sensitivity", "draw_sensitivity", "measure_sensitivity"]

#: Widths at which each group is tried.
PROBES = 4

_MAP = "cividis"  # told apart in grey as well as with any colour blindness
_WIDTH = 3.8  # inches: as wide as a telephone shows without making it smaller
_ROW, _AROUND = 0.19, 1.0  # inches
_LONGEST_NAME = 26  # characters


@dataclass(frozen=True)
class Sensitivity:
    """What pruning each group alone costs.

    Attributes:
        task: registered name.
        images: of search-train on which it was measured.
        accuracy: of the dense network on them, in [0, 1].
        recovery: what followed each cut.
        groups: (L,) names of the channel groups.
        shares: (P,) of the channels that may go, which went; the last is 1.
        drops: (L, P) accuracy lost, in [0, 1], never falling along a row.
    """

    task: str
    images: int
    accuracy: float
    recovery: str
    groups: tuple[str, ...]
    shares: tuple[float, ...]
    drops: tuple[tuple[float, ...], ...]

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Sensitivity:
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        lists = {name: tuple(values[name]) for name in ("groups", "shares")}
        return cls(**{**values, **lists, "drops": tuple(map(tuple, values["drops"]))})


def measure_sensitivity(
    dynamics: PruningDynamics, task: str, *, progress_bar: bool = False
) -> Sensitivity:
    """Take a part of each group alone, at `PROBES` widths, and look at images of search-train.

    Args:
        dynamics: of an environment, whose `importance_images` are looked at, with its recovery.
        task: registered name.
        progress_bar: whether to show the networks tried on the standard error stream.
    """
    graph, evaluator = dynamics.graph, dynamics.evaluator
    curves = rehearsed_curves(
        dynamics,
        PROBES,
        lambda dense, pruned: dense.accuracy - pruned.accuracy,
        progress_bar=progress_bar,
    )
    (dense,) = evaluator.rehearse_many([graph.full()])
    shares = np.linspace(0, 1, PROBES + 1)[1:]
    drops = [np.interp(shares * (len(curve) - 1), range(len(curve)), curve) for curve in curves]
    return Sensitivity(
        task=task,
        images=evaluator.importance_images,
        accuracy=dense.accuracy,
        recovery=evaluator.recovery,
        groups=tuple(group.name for group in graph.groups),
        shares=tuple(shares.tolist()),
        drops=tuple(tuple(row.tolist()) for row in drops),
    )


def draw_sensitivity(sensitivity: Sensitivity) -> Figure:
    """A map: a row for each group in execution order, a column for each share that went."""
    from matplotlib.figure import Figure

    points = 100 * np.array(sensitivity.drops)
    height = _ROW * len(points) + _AROUND
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    highest = max(float(points.max()), 1.0)
    image = axes.imshow(points, aspect="auto", cmap=_MAP, vmin=0, vmax=highest)
    axes.set_yticks(range(len(points)), list(map(_short, sensitivity.groups)), fontsize=7)
    columns = [f"{share:.0%}" for share in sensitivity.shares]
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_xlabel("taken from this group alone", fontsize=8)
    for (row, column), value in np.ndenumerate(points):
        colour = "black" if value > 0.55 * highest else "white"
        axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_title("points of accuracy lost", fontsize=9)
    figure.colorbar(image, ax=axes, pad=0.02).ax.tick_params(labelsize=7)
    return figure


def _short(name: str) -> str:
    """A name without its middle, if it is long."""
    half = (_LONGEST_NAME - 1) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]}…{name[-half:]}"
