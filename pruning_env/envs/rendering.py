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


def render_rgb(
    graph: ChannelGraph, budgets: tuple[Budget, ...], history: Sequence[PruningState]
) -> np.ndarray:
    """`FRAME_SHAPE` uint8: bars per group for the last state, below them the whole history.

    Args:
        graph: the dense network's channels.
        budgets: the limits to draw.
        history: judged states, oldest first, at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width, _ = FRAME_SHAPE
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(_headline(budgets, history[-1]), fontsize=11)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 2))
    _draw_groups(top, graph, history[-1])
    _draw_history(bottom, budgets, history)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _headline(budgets: tuple[Budget, ...], state: PruningState) -> str:
    bounds = (
        f"{b.name} {u:.1%} (limit {b.limit:.1%})" for b, u in zip(budgets, state.usage, strict=True)
    )
    return f"step {state.step}   accuracy {state.latest.accuracy:.1%}   " + "   ".join(bounds)


def _draw_groups(axes: Any, graph: ChannelGraph, state: PruningState) -> None:
    x = np.arange(len(graph.groups))
    kept = 100 * state.counts / graph.sizes
    axes.bar(x, 100 - kept, bottom=kept, color=_REMOVED, label="removed", width=0.8)
    axes.bar(x, kept, color=_KEPT, label="kept", width=0.8)
    axes.set(xlim=(-0.6, x.size - 0.4), ylim=(0, 100), ylabel="share of the group's channels [%]")
    every = -(-x.size // _MAX_LABELS)
    names = [_short(group.name) for group in graph.groups]
    slanted = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(x[::every], names[::every], fontsize=8, **(slanted if x.size > 3 else {}))
    if x.size <= _MAX_LABELS // 2:
        for position, count, size in zip(x, state.counts, graph.sizes, strict=True):
            axes.annotate(
                f"{count}/{size}", (position, 101), ha="center", fontsize=8, annotation_clip=False
            )
    _finish(axes)


def _draw_history(axes: Any, budgets: tuple[Budget, ...], history: Sequence[PruningState]) -> None:
    steps = [state.step for state in history]
    accuracy = [100 * state.latest.accuracy for state in history]
    axes.plot(steps, accuracy, color=_ACCURACY, marker="o", markersize=4, label="accuracy")
    for index, budget in enumerate(budgets):
        color, marker = _BUDGETS[index % len(_BUDGETS)], _MARKERS[index % len(_MARKERS)]
        usage = [100 * state.usage[index] for state in history]
        label = f"{budget.name} / dense"
        axes.plot(steps, usage, "--", color=color, marker=marker, markersize=4, label=label)
        axes.axhline(100 * budget.limit, color=color, linestyle=":", label=f"{budget.name} limit")
    axes.set(xlabel="step", ylabel="accuracy, usage [%]", ylim=(0, 105))
    axes.set_xlim(steps[0] - 0.2, max(steps[-1], steps[0] + 10) + 0.2)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _finish(axes)


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else "…" + name[1 - _MAX_NAME :]


def _finish(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8, frameon=False)
