"""Pictures of channel graphs for the page "How it works", drawn from what tracing finds.

`python -m docs.pictures FOLDER` writes them; the build of the pages does it by itself. Labels,
groups and slices come from the trace of the block below; only their places are chosen here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pruning_env import ChannelGraph, draw_graph
from pruning_env.graph.example import Example
from pruning_env.graph.tracing.interpreter import Capture
from pruning_env.tasks.registry import get_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart in all common forms of colour blindness.
_GROUPS = ("#0072B2", "#E69F00")
_FIXED, _KEPT, _INK = "#B8B8B8", "#F2F2F2", "#222222"
_REMOVED = (1, 2)
"""Of each group, the channel (from 0) that the picture removes."""


class ResidualBlock(nn.Module):
    """A small residual network: a stem, one block with a skip connection, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.conv1 = nn.Conv2d(4, 4, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 2) of images (N, 3, H, W)."""
        skip = self.stem(x)
        x = self.conv2(torch.relu(self.bn1(self.conv1(skip))))
        return self.head(torch.relu(x + skip).mean((2, 3)))


def draw_all(folder: Path) -> None:
    """Write all pictures into `folder`, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_block().savefig(folder / "block.svg")
    task = get_task("digits-resnet8")
    graph = ChannelGraph.trace(task.build(), task.example_input(), check=False)
    draw_graph(graph).savefig(folder / "digits-resnet8.svg")


def draw_block() -> Figure:
    """Left the labels that run through `ResidualBlock`, right what its weights lose."""
    from matplotlib.figure import Figure

    model, image = ResidualBlock().eval(), torch.zeros(1, 3, 8, 8)
    trace = Capture(model, Example((image,))).trace()
    graph = ChannelGraph.trace(model, image)
    labels = {key: owned.labels.tolist() for key, owned in trace.owned.items()}
    figure = Figure(figsize=(9.4, 6.2))
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.15))
    _draw_labels(left, labels, _group_of_labels(graph, labels))
    _draw_weights(right, graph)
    for axes, title in (
        (left, "1  labels run through the network"),
        (right, "2  what goes with one channel of each group"),
    ):
        axes.set_title(title, fontsize=11, loc="left", color=_INK)
        axes.set_aspect("equal", anchor="NW")
        axes.axis("off")
    figure.subplots_adjust(left=0.02, right=0.99, top=0.94, bottom=0.02, wspace=0.02)
    return figure


def _group_of_labels(
    graph: ChannelGraph, labels: dict[tuple[str, int], list[int]]
) -> dict[int, int]:
    """The group of each label that can be removed."""
    return {
        label: int(graph.group_index[channel])
        for slot in graph.slots
        for label, channel in zip(labels[slot.tensor, slot.dim], slot.channels, strict=True)
        if channel >= 0
    }


def _colour(group: int | None) -> str:
    return _FIXED if group is None else _GROUPS[group]


def _draw_labels(
    axes: Axes, labels: dict[tuple[str, int], list[int]], group_of: dict[int, int]
) -> None:
    """The flow of data from top to bottom, with the labels of every activation on its way."""
    out = {name: labels[f"{name}.weight", 0] for name in ("stem", "conv1", "conv2", "head")}
    centre, skip = 4.6, 1.2
    rows: list[tuple[str, Any]] = [
        ("chips", labels["stem.weight", 1]),
        ("box", "stem"),
        ("chips", out["stem"]),
        ("box", "conv1, bn1, ReLU"),
        ("chips", out["conv1"]),
        ("box", "conv2"),
        ("chips", out["conv2"]),
        ("add", "+"),
        ("chips", labels["head.weight", 1]),
        ("box", "head"),
        ("chips", out["head"]),
    ]
    heights = [-1.15 * row for row in range(len(rows))]
    axes.plot((centre, centre), (heights[0], heights[-1]), color=_INK, linewidth=1.2, zorder=0)
    axes.plot(
        (centre - 1.7, skip, skip, centre),
        (heights[2], heights[2], heights[7], heights[7]),
        color=_INK,
        linewidth=1.2,
        zorder=0,
    )
    axes.text(skip - 0.15, (heights[2] + heights[7]) / 2, "skip", rotation=90, ha="right",
              va="center", fontsize=9, color=_INK)  # fmt: skip
    for height, (kind, content) in zip(heights, rows, strict=True):
        if kind == "chips":
            _draw_chips(axes, centre, height, content, group_of)
        else:
            _draw_box(axes, centre, height, content, 1.0 if kind == "add" else 3.6)
    pairs = [f"{a}={b}" for a, b in zip(out["stem"], out["conv2"], strict=True)]
    note = "the sum merges\n" + ",\n".join(", ".join(pairs[i : i + 2]) for i in (0, 2))
    axes.text(centre + 2.1, heights[7], note, ha="left", va="center", fontsize=9, color=_INK)
    axes.text(centre + 2.1, heights[0], "0: nobody's", ha="left", va="center", fontsize=9,
              color=_INK)  # fmt: skip
    axes.text(centre + 2.1, heights[10], "outputs stay", ha="left", va="center", fontsize=9,
              color=_INK)  # fmt: skip
    axes.set_xlim(0.4, centre + 5.6)
    axes.set_ylim(heights[-1] - 0.8, 0.8)


def _draw_chips(
    axes: Axes, centre: float, height: float, content: Sequence[int], group_of: dict[int, int]
) -> None:
    from matplotlib.patches import Circle, Rectangle

    first = centre - 0.42 * (len(content) - 1)
    width = 0.84 * len(content)
    axes.add_patch(Rectangle((centre - width / 2, height - 0.36), width, 0.72, facecolor="white"))
    for place, label in enumerate(content):
        x = first + 0.84 * place
        axes.add_patch(Circle((x, height), 0.36, facecolor=_colour(group_of.get(label)),
                              edgecolor="white", linewidth=1.0))  # fmt: skip
        axes.text(x, height, str(label), ha="center", va="center", fontsize=9, color="white",
                  weight="bold")  # fmt: skip


def _draw_box(axes: Axes, centre: float, height: float, text: str, width: float) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(
        FancyBboxPatch(
            (centre - width / 2, height - 0.27),
            width,
            0.54,
            boxstyle="round,pad=0.03,rounding_size=0.15",
            facecolor="white",
            edgecolor=_INK,
        )
    )
    axes.text(centre, height, text, ha="center", va="center", fontsize=9.5, color=_INK)


def _draw_weights(axes: Axes, graph: ChannelGraph) -> None:
    """Every weight as a grid, rows for outputs, with the slices of the removed channels filled."""
    from matplotlib.patches import Rectangle

    removed = {group.start + nth for group, nth in zip(graph.groups, _REMOVED, strict=True)}
    places = {
        "stem.weight": (0.0, 0.0),
        "conv1.weight": (6.2, 0.0),
        "bn1.weight": (12.6, 0.0),
        "conv2.weight": (0.0, -6.2),
        "head.weight": (6.2, -6.2),
    }
    for name, corner in places.items():
        _draw_weight(axes, graph, name, corner, removed)
    for number, group in enumerate(graph.groups):
        text = (
            f"group {number}, {group.name}: {group.size} channels\n"
            f"outputs of {', '.join(group.layers)}; inputs of {', '.join(group.consumers)}"
        )
        top = -12.2 - 2.0 * number
        axes.add_patch(Rectangle((0.0, top - 1.0), 1.0, 1.0, facecolor=_GROUPS[number]))
        axes.text(1.4, top, text, fontsize=9.5, va="top", color=_INK, linespacing=1.4)
    axes.set_xlim(-1.8, 15.6)
    axes.set_ylim(-16.0, 2.2)


def _draw_weight(
    axes: Axes, graph: ChannelGraph, name: str, corner: tuple[float, float], removed: set[int]
) -> None:
    from matplotlib.patches import Rectangle

    shape = graph.shapes[name]
    rows, columns = shape[0], shape[1] if len(shape) > 1 else 1
    owner = {slot.dim: slot.channels.tolist() for slot in graph.slots if slot.tensor == name}
    by_row, by_column = owner.get(0, [-1] * rows), owner.get(1, [-1] * columns)
    x, y = corner
    axes.text(x, y + 1.5, name, fontsize=10, color=_INK)
    for row in range(rows):
        for column in range(columns):
            gone = [c for c in (by_row[row], by_column[column]) if c in removed]
            cell = Rectangle((x + column, y - row), 1, 1, facecolor=_KEPT, edgecolor="white")
            axes.add_patch(cell)
            for nth, channel in enumerate(gone):  # of two groups, half a cell each
                share = 1 / len(gone)
                axes.add_patch(
                    Rectangle(
                        (x + column + nth * share, y - row),
                        share,
                        1,
                        facecolor=_GROUPS[graph.group_index[channel]],
                        edgecolor="white",
                        linewidth=0.6,
                    )
                )
    _draw_edge(axes, graph, by_row, lambda i: (x - 0.28, y - i + 0.14, 0.16, 0.72))
    if len(shape) > 1:
        _draw_edge(axes, graph, by_column, lambda i: (x + i + 0.14, y + 1.12, 0.72, 0.16))


def _draw_edge(axes: Axes, graph: ChannelGraph, channels: Sequence[int], place: Any) -> None:
    """A mark beside each row or column, in the colour of the group that owns it."""
    from matplotlib.patches import Rectangle

    for index, channel in enumerate(channels):
        x, y, width, height = place(index)
        group = None if channel < 0 else int(graph.group_index[channel])
        axes.add_patch(Rectangle((x, y), width, height, facecolor=_colour(group)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    draw_all(parser.parse_args().folder)
