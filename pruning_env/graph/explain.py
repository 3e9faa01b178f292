"""A channel graph in words: why a layer is coupled or frozen, and a table of all groups.

Reads graphs only; knows nothing of models, pruning or drawing.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pruning_env.graph.structure import ChannelStructure

#: What the indices of a layer's tensors are, by the role of a slot, in the order of telling.
_PARTS = {"in": "inputs", "channelwise": "channels", "out": "outputs"}


def explain(graph: ChannelStructure, layer: str) -> str:
    """Say what hangs together with `layer`, and why what stays of it stays.

    Raises:
        ValueError: When the graph knows no such layer; the message names similar ones.
    """
    parts = _parts(graph, layer)
    adapters = list(_adapters(graph, layer))
    reasons = frozen_reasons(graph, layer)
    if not parts and not adapters and not reasons:
        known = _layers(graph)
        if layer not in known:
            close = difflib.get_close_matches(layer, known, n=3)
            hint = (
                f"similar: {', '.join(close)}" if close else f"it knows {', '.join(known[:5])}, ..."
            )
            raise ValueError(f"layer={layer!r} has no tensors in this graph; {hint}")
    lines = [layer]
    told: set[int] = set()
    for role, channels in parts.items():
        for group, count in _shares(graph, channels):
            what = f"{count:,} of its {len(channels):,} {_PARTS[role]}"
            if count == len(channels):
                what = f"its {count:,} {_PARTS[role]}"
            if group is None:
                lines.append(f"  {what} always stay")
                continue
            member = graph.groups[group]
            lines.append(
                f"  {what} belong to group {group}, {member.name} ({member.size:,} channels)"
            )
            if group not in told:
                told.add(group)
                lines += _coupling(graph, group, layer)
    if not parts and not reasons and not adapters:
        lines.append("  nothing of it can be removed: no removable channel reaches it")
    lines += [f"  frozen: {reason}" for reason in reasons]
    return "\n".join(lines + adapters) + "\n"


def table(graph: ChannelStructure, width: int = 120) -> str:
    """All groups with their members and consumers, then all frozen layers by reason.

    Args:
        graph: What to show.
        width: Of the text, in characters; at least 80.
    """
    if width < 80:
        raise ValueError(f"width={width} is not allowed; give at least 80")
    full = int(graph.params(graph.full()))
    least = int(graph.params_at(np.ones_like(graph.sizes)))
    lines = [
        f"{len(graph.groups)} groups, {graph.num_channels:,} channels; "
        f"{1 - least / full:.1%} of the {full:,} parameters can go",
        "",
    ]
    # Half of what is left beside the numbers goes to each of the two lists of layers.
    column = (width - 27) // 2
    lines.append(
        f"{'group':>5}  {'size':>6}  {'kernel':>6}  {'lose outputs':<{column}}  lose inputs"
    )
    for number, group in enumerate(graph.groups):
        kernel = f"{group.kernel}/{group.stride}" if group.stride > 1 else str(group.kernel)
        left = _wrapped(abbreviate(group.layers), column)
        right = _wrapped(abbreviate(group.consumers), column)
        for row in range(max(len(left), len(right))):
            head = f"{number:>5}  {group.size:>6,}  {kernel:>6}" if row == 0 else " " * 21
            first, second = (cell[row] if row < len(cell) else "" for cell in (left, right))
            lines.append(f"{head}  {first:<{column}}  {second}".rstrip())
    reasons: dict[str, tuple[list[str], list[str]]] = {}
    for layer, reason in graph.frozen.items():
        # Reasons name places; of those that differ in numbers only, one is told.
        told, layers = reasons.setdefault(re.sub(r"\d+", "#", reason), ([], []))
        told.append(reason)
        layers.append(layer)
    lines += ["", f"frozen layers: {len(graph.frozen) or 'none'}"]
    for told, layers in reasons.values():
        lines += textwrap.wrap(
            f"{', '.join(abbreviate(told))}: {' '.join(abbreviate(layers))}",
            width,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    for adapter in graph.widened:
        lines.append(f"  {adapter.module} runs at full width")
    return "\n".join(lines) + "\n"


def frozen_reasons(graph: ChannelStructure, layer: str) -> list[str]:
    """Why `layer`, or parameters of its own that have an entry of their own, are frozen."""
    return list(
        dict.fromkeys(
            reason
            for name, reason in graph.frozen.items()
            if name == layer or (name in graph.shapes and name.rpartition(".")[0] == layer)
        )
    )


def layer_order(graph: ChannelStructure) -> list[str]:
    """Every layer that has tensors, in execution order.

    A layer that no removable channel reaches, whose place in the execution the graph does not know,
    follows the one it is defined after.
    """
    executed = dict.fromkeys(slot.tensor.rpartition(".")[0] for slot in graph.slots)
    order = list(executed)
    before = None
    for layer in _layers(graph):
        if layer not in executed:
            order.insert(0 if before is None else order.index(before) + 1, layer)
        before = layer
    return order


def abbreviate(names: Iterable[str]) -> list[str]:
    """Names that differ in one number become one: `layer1.0.conv2`, `layer1.1.conv2`.

    Gives `layer1.{0,1}.conv2`. Their order is that of the first of each.
    """
    rows = [re.split(r"(\d+)", name) for name in dict.fromkeys(names)]
    for place in range(1, max(map(len, rows), default=0), 2):
        merged: dict[tuple[str, ...], tuple[list[str], list[str]]] = {}
        for row in rows:
            # Only what has as many numbers, and the same ones elsewhere, is the same layer again.
            key = (
                (str(len(row)), *row[:place], *row[place + 1 :])
                if place < len(row)
                else ("alone", *row)
            )
            numbers = merged.setdefault(key, (row, []))[1]
            numbers += [row[place]] if place < len(row) else []
        rows = []
        for row, numbers in merged.values():
            if len(numbers) > 1:
                row = [*row[:place], "{" + _ranges(numbers) + "}", *row[place + 1 :]]
            rows.append(row)
    return ["".join(row) for row in rows]


def _ranges(numbers: list[str]) -> str:
    """`["0", "1", "2", "5"]` -> `0-2,5`."""
    if not all(number.isdigit() for number in numbers):
        return ",".join(numbers)
    runs: list[list[int]] = []
    for number in sorted(map(int, numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(
        f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs
    )


def _wrapped(names: list[str], width: int) -> list[str]:
    """Lines of at most `width` characters; longer names are cut."""
    return textwrap.wrap(" ".join(names), width, break_on_hyphens=False) or [""]


def _layers(graph: ChannelStructure) -> list[str]:
    return list(dict.fromkeys(name.rpartition(".")[0] for name in graph.shapes))


def _parts(graph: ChannelStructure, layer: str) -> dict[str, NDArray[np.int64]]:
    """What owns the layer's inputs, channels and outputs: of several tensors, the first."""
    found: dict[str, NDArray[np.int64]] = {}
    for slot in graph.slots:
        if slot.tensor.rpartition(".")[0] == layer:
            found.setdefault(slot.role, slot.channels)
    return {role: found[role] for role in _PARTS if role in found}


def _shares(
    graph: ChannelStructure, channels: NDArray[np.int64]
) -> Iterator[tuple[int | None, int]]:
    """(group, number of indices) for every group in `channels`; None is what always stays."""
    owners = np.where(channels < 0, -1, graph.group_index[channels])
    numbers, first, counts = np.unique(owners, return_index=True, return_counts=True)
    for place in np.argsort(first):
        number = int(numbers[place])
        yield (None if number < 0 else number), int(counts[place])


def _coupling(graph: ChannelStructure, group: int, layer: str) -> Iterator[str]:
    member = graph.groups[group]
    others = [name for name in member.layers if name != layer]
    if others:
        yield f"    with a channel go outputs of {' '.join(abbreviate(others))}"
    readers = [name for name in member.consumers if name != layer]
    if readers:
        yield f"    and inputs of {' '.join(abbreviate(readers))}"


def _adapters(graph: ChannelStructure, layer: str) -> Iterator[str]:
    if any(adapter.module == layer for adapter in graph.widened):
        yield "  it runs at full width between a scatter and a gather: its code holds the widths"
    if any(adapter.module == layer for adapter in graph.normalised):
        yield "  its statistics run over the channels that are kept"
