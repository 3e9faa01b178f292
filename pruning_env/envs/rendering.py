"""Pictures of an episode: a text table, and an RGB array.

Matplotlib is imported only when a picture is asked for, and only its object interface is used, so
that no figure manager or backend of the caller is touched. Knows nothing of environments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.budgets import Budget
    from pruning_env.process.dynamics import PruningState

FRAME_SHAPE = (640, 960, 3)  # height, width, RGB [pixels]
_DPI = 100
_BAR_WIDTH = 20  # characters of a full bar
_STEPS = 10  # by which the axis of steps grows
_MAX_LABELS = 32  # group names that fit side by side
_MAX_NAME = 28  # characters of a group name in the picture; longer ones lose their beginning

# Okabe and Ito's colours, which stay apart in all common forms of colour blindness; lines differ in
# marker and dash as well.
_KEPT, _REMOVED = "#0072B2", "#E6E6E6"
_ACCURACY = "#000000"
_BUDGETS = ("#D55E00", "#009E73", "#CC79A7", "#56B4E9")
_MARKERS = ("s", "^", "D", "v")


def render_ansi(
    graph: ChannelGraph, budgets: tuple[Budget, ...], history: Sequence[PruningState]
) -> str:
    """The last state of `history` as text: a headline, then one row with a bar per group."""
    state = history[-1]
    lines = [_headline(budgets, state), ""]
    width = max(len("group"), *(len(group.name) for group in graph.groups))
    lines.append(f"{'group':<{width}}  {'kept':>11}  {'sparsity':>8}  channels kept")
    for group, count in zip(graph.groups, state.counts.tolist(), strict=True):
        # Rounded up: a group that keeps a channel shows a bar.
        filled = -(-count * _BAR_WIDTH // group.size)
        bar = "█" * filled + "░" * (_BAR_WIDTH - filled)
        kept = f"{count}/{group.size}"
        lines.append(f"{group.name:<{width}}  {kept:>11}  {1 - count / group.size:8.1%}  {bar}")
    return "\n".join(lines) + "\n"


class Painter:
    """Draws the episodes of one environment as pixels.

    Axes, names and legends are drawn once, and again where the history outgrows its axis; a frame
    puts bars, lines and numbers on a copy of that picture.

    Args:
        graph: the dense network's channels.
        budgets: the limits to draw.
    """

    def __init__(self, graph: ChannelGraph, budgets: tuple[Budget, ...]) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width, _ = FRAME_SHAPE
        self._budgets, self._sizes = budgets, graph.sizes
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
        self._canvas = FigureCanvasAgg(self._figure)
        # What is animated is left out of the background.
        self._title = self._figure.suptitle(" ", fontsize=11, animated=True)
        top, self._bottom = self._figure.subplots(2, 1, height_ratios=(3, 2))
        self._bars, self._counts = _groups(top, graph)
        self._lines = _lines(self._bottom, budgets)
        self._bottom.set_xlim(-0.2, _STEPS + 0.2)
        self._canvas.draw()
        self._figure.set_layout_engine("none")  # or a later drawing would move everything a little
        self._steps: tuple[int, int] | None = None  # from which to which the background goes

    def frame(self, history: Sequence[PruningState]) -> np.ndarray:
        """`FRAME_SHAPE` uint8: bars per group for the last state, below them the whole history.

        Args:
            history: judged states, oldest first, at least one.
        """
        state = history[-1]
        self._title.set_text(_headline(self._budgets, state))
        for bar, kept in zip(self._bars, 100 * state.counts / self._sizes, strict=True):
            bar.set_height(kept)
        for text, count, size in zip(self._counts, state.counts, self._sizes, strict=False):
            text.set_text(f"{count}/{size}")
        steps = [each.step for each in history]
        values = [[100 * each.latest.accuracy for each in history]]
        values += [[100 * each.usage[i] for each in history] for i in range(len(self._budgets))]
        for line, points in zip(self._lines, values, strict=True):
            line.set_data(steps, points)
        self._prepare(steps[0], steps[-1])
        self._canvas.restore_region(self._background)
        for artist in (*self._bars, *self._counts, *self._lines):
            artist.axes.draw_artist(artist)
        self._figure.draw_artist(self._title)
        return np.asarray(self._canvas.buffer_rgba())[..., :3].copy()

    def _prepare(self, first: int, last: int) -> None:
        """Draw the background anew, unless the one there is has these steps on its axis."""
        end = first + max(1, -(-(last - first) // _STEPS)) * _STEPS
        if self._steps == (first, end):
            return
        self._bottom.set_xlim(first - 0.2, end + 0.2)
        self._canvas.draw()
        self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._steps = (first, end)


def _headline(budgets: tuple[Budget, ...], state: PruningState) -> str:
    bounds = (
        f"{b.name} {u:.1%} (limit {b.limit:.1%})" for b, u in zip(budgets, state.usage, strict=True)
    )
    return f"step {state.step}   accuracy {state.latest.accuracy:.1%}   " + "   ".join(bounds)


def _groups(axes: Any, graph: ChannelGraph) -> tuple[Any, list[Any]]:
    """A bar per group for what is kept, and the texts above them where there is room."""
    x = np.arange(len(graph.groups))
    axes.bar(x, 100, color=_REMOVED, label="removed", width=0.8)
    bars = axes.bar(x, 100, color=_KEPT, label="kept", width=0.8, animated=True)
    axes.set(xlim=(-0.6, x.size - 0.4), ylim=(0, 100), ylabel="share of the group's channels [%]")
    every = -(-x.size // _MAX_LABELS)
    names = [_short(group.name) for group in graph.groups]
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(x[::every], names[::every], fontsize=8, **(slanted if x.size > 3 else {}))
    written = {"ha": "center", "fontsize": 8, "annotation_clip": False, "animated": True}
    texts = [
        axes.annotate(f"{size}/{size}", (position, 101), **written)
        for position, size in zip(x, graph.sizes, strict=True)
        if x.size <= _MAX_LABELS // 2
    ]
    _finish(axes)
    return bars, texts


def _lines(axes: Any, budgets: tuple[Budget, ...]) -> list[Any]:
    """Lines for accuracy and for each budget, still without points; limits are drawn."""
    style = {"markersize": 4, "animated": True}
    lines = axes.plot([], [], color=_ACCURACY, marker="o", label="accuracy", **style)
    for index, budget in enumerate(budgets):
        color, marker = _BUDGETS[index % len(_BUDGETS)], _MARKERS[index % len(_MARKERS)]
        label = f"{budget.name} / dense"
        lines += axes.plot([], [], "--", color=color, marker=marker, label=label, **style)
        axes.axhline(100 * budget.limit, color=color, linestyle=":", label=f"{budget.name} limit")
    axes.set(xlabel="step", ylabel="accuracy, usage [%]", ylim=(0, 105))
    axes.xaxis.get_major_locator().set_params(integer=True)
    _finish(axes)
    return lines


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else "…" + name[1 - _MAX_NAME :]


def _finish(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
