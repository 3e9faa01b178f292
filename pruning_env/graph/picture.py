"""A picture of a channel graph: layers in execution order, and which lose channels together.

Drawn like a branch history: one row per layer, one lane per group, from the layers that produce its
channels to those that read them. Matplotlib is imported only when a picture is asked for, and only
its object interface is used. Knows nothing of models or pruning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pruning_env.graph.explain import frozen_reasons, layer_order

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pruning_env.graph.channel_graph import ChannelGraph

# Okabe and Ito's colours, which stay apart in all common forms of colour blindness.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
_SINGLE, _FROZEN = "#8C8C8C", "#B22222"
_ROW, _LANE = 0.20, 0.17  # inches
_FONT = 7.5
_LEGEND = 0.72  # inches
_LONGEST_NAME, _LONGEST_REASON = 40, 90  # characters
_LABEL_STYLE: dict[str, Any] = {"fontsize": _FONT, "family": "monospace"}
_REASON_STYLE: dict[str, Any] = {"fontsize": _FONT, "style": "italic"}


@dataclass(frozen=True)
class _Strand:
    """One group as it is drawn: the rows of its layers by what they lose, and its lane."""

    producers: tuple[int, ...]
    depthwise: tuple[int, ...]
    readers: tuple[int, ...]
    lane: int = 0

    @property
    def rows(self) -> tuple[int, int]:
        """First and last row."""
        every = self.producers + self.depthwise + self.readers
        return min(every), max(every)

    @property
    def coupled(self) -> bool:
        """Whether several layers have to lose the same outputs."""
        return len(self.producers) + len(self.depthwise) > 1


def draw_graph(graph: ChannelGraph) -> Figure:
    """The groups of `graph` as a figure, some inches wide and 0.2 inches high per layer.

    Norms and other layers without a weight matrix are left out: they follow the layer they belong
    to. Long names lose their middle, but no two become the same.
    """
    from matplotlib.figure import Figure

    layers = [name for name in layer_order(graph) if _has_matrix(graph, name)]
    strands = _strands(graph, {name: row for row, name in enumerate(layers)})
    lanes = 1 + max((strand.lane for strand in strands), default=0)
    texts = [_short("; ".join(frozen_reasons(graph, name))) for name in layers]
    labels = _labels(graph, layers)
    figure = Figure()
    left = _inches(figure, labels[:1], _LABEL_STYLE) + 0.1  # all are of one length
    right = _inches(figure, set(texts), _REASON_STYLE) + 0.2
    middle = _LANE * (lanes + 1)
    width = max(left + middle + right, 5.2)
    height = _ROW * (len(layers) + 1) + _LEGEND
    figure.set_size_inches(width, height)
    axes = figure.add_axes((left / width, 0.0, middle / width, 1 - _LEGEND / height))
    axes.set_xlim(-1, lanes)
    axes.set_ylim(len(layers) - 0.5, -1.5)
    axes.axis("off")
    _write(axes, -1, labels[0], "dimgrey")
    for row, text in enumerate(texts):
        axes.plot((-1, lanes), (row, row), color="#EEEEEE", linewidth=0.8, zorder=0)
        _write(axes, row, labels[row + 1], _FROZEN if text else "black")
        if text:
            axes.text(lanes + 0.2, row, text, va="center", color=_FROZEN, **_REASON_STYLE)
    coupled = 0
    for strand in strands:
        colour = _COLOURS[coupled % len(_COLOURS)] if strand.coupled else _SINGLE
        coupled += strand.coupled
        _draw_strand(axes, strand, colour)
    _draw_legend(figure, graph, height)
    return figure


def _has_matrix(graph: ChannelGraph, layer: str) -> bool:
    return any(
        len(shape) > 1 and name.endswith("weight") and name.rpartition(".")[0] == layer
        for name, shape in graph.shapes.items()
    )


def _labels(graph: ChannelGraph, layers: list[str]) -> list[str]:
    """A heading, then name, number of outputs and groups of each layer, all of one length."""
    rows = [("layer", "outputs", "group")]
    for name, short in zip(layers, _shortened(layers), strict=True):
        weight = graph.shapes.get(f"{name}.weight")
        own = [str(i) for i, group in enumerate(graph.groups) if name in group.layers]
        rows.append((short, str(weight[0]) if weight else "", ",".join(own[:3])))
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    return [f"{a:>{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]


def _write(axes: Axes, row: int, text: str, colour: str) -> None:
    axes.text(-1.3, row, text, ha="right", va="center", color=colour, **_LABEL_STYLE)


def _inches(figure: Figure, texts: Iterable[str], style: dict[str, Any]) -> float:
    """Width of the longest text as it will be drawn."""
    drawn = [figure.text(0, 0, text, **style) for text in texts]
    widths = [text.get_window_extent().width / figure.dpi for text in drawn]
    for text in drawn:
        text.remove()
    return max(widths)


def _shortened(names: Sequence[str]) -> list[str]:
    """Names without the middle of what is long, each as long as it takes to tell them apart."""
    for longest in itertools.count(_LONGEST_NAME):
        short = [_without_middle(name, longest) for name in names]
        if len(set(short)) == len(set(names)):
            return short
    raise AssertionError("whole names differ")


def _without_middle(name: str, longest: int) -> str:
    """The end tells more of a layer than the beginning, so two thirds of what stays are its."""
    begin = longest // 3
    return name if len(name) <= longest else f"{name[:begin]}…{name[begin + 1 - longest :]}"


def _short(reason: str) -> str:
    return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"


def _strands(graph: ChannelGraph, row_of: dict[str, int]) -> list[_Strand]:
    """What to draw of each group; coupled groups get the lanes next to the names."""
    roles: dict[str, set[str]] = {}
    for slot in graph.slots:
        roles.setdefault(slot.tensor.rpartition(".")[0], set()).add(slot.role)
    found = []
    for group in graph.groups:
        members = [name for name in group.layers if name in row_of]
        found.append(
            _Strand(
                tuple(row_of[name] for name in members if "out" in roles[name]),
                tuple(row_of[name] for name in members if "out" not in roles[name]),
                tuple(row_of[name] for name in group.consumers if name in row_of),
            )
        )
    drawn = [strand for strand in found if strand.producers]
    drawn.sort(key=lambda strand: (len(strand.producers) < 2, strand.rows))
    taken: list[list[tuple[int, int]]] = [[] for _ in drawn]
    placed = []
    for strand in drawn:
        first, last = strand.rows
        lane = next(
            lane
            for lane, spans in enumerate(taken)
            if all(last < begin or end < first for begin, end in spans)
        )
        taken[lane].append((first, last))
        placed.append(replace(strand, lane=lane))
    return sorted(placed, key=lambda strand: strand.rows)


def _draw_strand(axes: Axes, strand: _Strand, colour: str) -> None:
    x = strand.lane
    axes.plot((x, x), strand.rows, color=colour, linewidth=1.8 if strand.coupled else 1.0, zorder=1)
    for rows, marker, size, face in (
        (strand.readers, "o", 16, "white"),
        (strand.depthwise, "D", 16, colour),
        (strand.producers, "o", 34, colour),
    ):
        axes.scatter(
            [x] * len(rows),
            rows,
            s=size,
            marker=marker,
            facecolor=face,
            edgecolor=colour,
            linewidth=1.2,
            zorder=2,
        )


def _draw_legend(figure: Figure, graph: ChannelGraph, height: float) -> None:
    from matplotlib.lines import Line2D

    figure.text(
        0.01,
        1 - 0.12 / height,
        f"{len(graph.groups)} groups, {graph.num_channels:,} removable channels",
        va="top",
        fontsize=9.5,
        weight="bold",
    )

    def mark(marker: str, size: float, face: str, label: str, colour: str = _COLOURS[0]) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="none",
            marker=marker,
            markersize=size,
            markerfacecolor=face,
            markeredgecolor=colour,
            label=label,
        )

    figure.legend(
        handles=[
            mark("o", 6, _COLOURS[0], "loses outputs"),
            mark("D", 4, _COLOURS[0], "loses its depthwise filter"),
            mark("o", 4, "white", "loses inputs"),
            Line2D([], [], color=_COLOURS[0], linewidth=2, label="several layers, one choice"),
            Line2D([], [], color=_SINGLE, linewidth=1, label="one layer"),
        ],
        loc="upper left",
        bbox_to_anchor=(0.0, 1 - 0.26 / height),
        borderpad=0.2,
        ncols=3,
        frameon=False,
        fontsize=_FONT,
        handletextpad=0.4,
        columnspacing=1.2,
    )
