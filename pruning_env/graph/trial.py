"""The trial: prunes a twin at telling masks, and finds the groups that come out wrong.

It finds what no trace can show, numbers of channels that are written into `forward` or decided on
there, and says where they are. It knows nothing of labels and operators.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pruning_env.graph.comparison import Comparison
from pruning_env.graph.example import Example
from pruning_env.graph.structure import ChannelStructure
from pruning_env.graph.widths import Turn, turns

Counts = NDArray[np.int64]
# Of one or two channels a layer norm leaves a constant or a sign, and hides what comes before it:
# where groups are as small as that, each is tried while its neighbours are whole.
_FEW = 8
_MAX_TURNS = 24  # masks for sizes that code compares: each costs two forward passes


def failing_groups(
    graph: ChannelStructure,
    model: nn.Module,
    example: Example,
    doubtful: Counts,
    parts: Sequence[Sequence[Counts]] = (),
) -> dict[int, str]:
    """Groups whose pruned model does not run, or differs from the masked one, and how.

    The masks: half of everything, in eval and in train mode; one channel of each group; equal
    widths, as far as groups are large enough; the widths at which code that compares sizes would
    decide otherwise; every other group whole, where some are small; and, where numbers of channels
    are numbers of their own, lopsided ones. All groups are tried at once; only when that fails are
    they told apart.

    Args:
        graph: The graph of `model`.
        model: The dense model.
        example: Its example.
        doubtful: Groups to suspect first, as indices.
        parts: The groups in each part of channels that code cuts unevenly, by cut.
    """
    if not graph.groups:
        return {}
    comparison = Comparison(graph, model, example)
    masks = _masks(comparison, graph, model, example, parts)
    failing: dict[int, str] = {}
    passed: dict[int, bytes] = {}  # by mask, the groups that passed together
    while True:
        before = len(failing)
        for number, (keep, training) in enumerate(masks):
            left = np.setdiff1d(np.arange(len(graph.groups)), list(failing))
            if not len(left) or passed.get(number) == left.tobytes():
                continue

            known: dict[bytes, str | None] = {}

            def fault(
                groups: Counts,
                keep: NDArray[np.bool_] = keep,
                training: bool = training,
                known: dict[bytes, str | None] = known,
            ) -> str | None:
                if (key := groups.tobytes()) not in known:
                    others = ~np.isin(graph.group_index, groups)
                    known[key] = comparison.fault(keep | others, training)
                return known[key]

            while len(left) and (found := fault(left)) is not None:
                told = _tell_apart(fault, np.intersect1d(left, doubtful))
                told |= _tell_apart(fault, np.setdiff1d(left, doubtful))
                failing |= told or dict.fromkeys(_together(fault, left).tolist(), found)
                left = np.setdiff1d(left, list(failing))
            passed[number] = left.tobytes()
        if len(failing) == before:
            return failing


def first_fault(
    graph: ChannelStructure,
    model: nn.Module,
    example: Example,
    parts: Sequence[Sequence[Counts]] = (),
    among: Iterable[int] | None = None,
) -> str | None:
    """How a pruned model first fails at the masks of `failing_groups`; None if it never does.

    Args:
        graph: The graph of `model`.
        model: The dense model.
        example: Its example.
        parts: As in `failing_groups`.
        among: Groups to prune, as indices; None for all.
    """
    if not graph.groups:
        return None
    comparison = Comparison(graph, model, example)
    others = np.zeros(graph.num_channels, bool)
    if among is not None:
        others = ~np.isin(graph.group_index, list(among))
    masks = _masks(comparison, graph, model, example, parts)
    faults = (comparison.fault(keep | others, training) for keep, training in masks)
    return next((fault for fault in faults if fault is not None), None)


def _masks(
    comparison: Comparison,
    graph: ChannelStructure,
    model: nn.Module,
    example: Example,
    parts: Sequence[Sequence[Counts]],
) -> list[tuple[NDArray[np.bool_], bool]]:
    """Every mask to try, and whether in train mode."""
    draws = np.random.default_rng(0).random(graph.num_channels)
    # What is kept longest in one mask goes first in the next: where code cuts a tensor, it may be
    # the channel beside the cut that a wrong number forgets.
    ranks = [graph.rank(draws), graph.rank(-draws)]
    counts = _counts(graph, model, example, parts)
    masks = [(graph.keep_top(ranks[n % 2], each), False) for n, each in enumerate(counts)]
    if comparison.trains:
        masks.insert(1, (masks[0][0], True))
    return masks


def _counts(
    graph: ChannelStructure, model: nn.Module, example: Example, parts: Sequence[Sequence[Counts]]
) -> Iterator[Counts]:
    """Channels per group of every mask to try; nothing twice."""
    sizes = graph.sizes
    half = np.random.default_rng(1).binomial(sizes, 0.5).clip(1, sizes - 1)
    found, compares = turns(model, example)
    equal = [int(sizes.min()) // 2]
    if compares:  # as many as groups are large enough for
        equal += [int(n) // 2 for n in np.unique(sizes)[1:][-3:]]
    masks = [half, np.ones_like(sizes), *(np.minimum(sizes, max(1, n)) for n in equal)]
    layouts = _layouts(graph)
    turned = (_at(sizes, layouts, turn) for turn in found)
    masks += [counts for counts in turned if counts is not None][:_MAX_TURNS]
    if sizes.min() < _FEW:
        odd = np.arange(len(sizes)) % 2 == 1
        masks += [np.where(odd, sizes, half), np.where(odd, half, sizes)]
    if parts or graph.attributes:
        masks += [_scattered(sizes), *_lopsided(sizes, half, parts)]
    yield from {counts.tobytes(): counts for counts in masks}.values()


def _scattered(sizes: Counts) -> Counts:
    """Channels per group that are others in each of the groups of one size, as far as they can."""
    counts = sizes.copy()
    for size in np.unique(sizes):
        alike = np.flatnonzero(sizes == size)
        counts[alike] = 1 + (size // 3 + np.arange(len(alike))) % size
    return counts


def _lopsided(sizes: Counts, half: Counts, parts: Sequence[Sequence[Counts]]) -> Iterator[Counts]:
    """Channels per group that make parts of one cut unequally narrow.

    Of any two parts each is narrow once while the other is whole: code that takes fractions, or
    counts from the end, is right at any mask that narrows all parts alike.
    """
    pairs = [(set(a.tolist()), set(b.tolist())) for cut in parts for a, b in combinations(cut, 2)]
    left = [(a - b, b - a) for a, b in pairs if a - b and b - a]
    while left:
        narrow: set[int] = set()
        whole: set[int] = set()
        later = []
        for a, b in left:
            if narrow.isdisjoint(b) and whole.isdisjoint(a):
                narrow |= a
                whole |= b
            elif not (narrow.isdisjoint(a) and whole.isdisjoint(b)):
                later.append((a, b))
            else:
                narrow |= b
                whole |= a
        left = later
        for few, many in ((narrow, whole), (whole, narrow)):
            counts = half.copy()
            counts[list(few)] = np.maximum(1, sizes[list(few)] // 4)
            counts[list(many)] = sizes[list(many)]
            yield counts


def _layouts(graph: ChannelStructure) -> dict[int, list[Counts]]:
    """By the width of a tensor, the channels of each group in it."""
    found: dict[int, dict[bytes, Counts]] = {}
    for slot in graph.slots:
        owned = slot.channels[slot.channels >= 0]
        counts = np.bincount(graph.group_index[owned], minlength=len(graph.groups))
        found.setdefault(len(slot.channels), {})[counts.tobytes()] = counts
    return {width: list(layouts.values()) for width, layouts in found.items()}


def _at(sizes: Counts, layouts: dict[int, list[Counts]], turn: Turn) -> Counts | None:
    """Channels per group where what had the widths of `turn` has its new ones; None if nothing."""
    if not all(width in layouts for width, _ in turn.widths):
        return None  # of an image, mostly
    counts = sizes.copy()
    if not turn.others:
        ratio = min(narrow / width for width, narrow in turn.widths)
        counts = np.clip(np.round(sizes * ratio).astype(np.int64), 1, sizes)
    chosen = np.zeros(len(sizes), bool)
    for width, narrow in turn.widths:
        for layout in layouts[width]:
            members = np.flatnonzero((layout > 0) & ~chosen)
            chosen[members] = True
            spare = narrow - (width - int(layout.sum()))  # what stays of it always stays
            share = layout[members] * spare / max(1, int(layout[members].sum()))
            target = np.floor(share).astype(np.int64)
            target[np.argsort(target - share)[: max(0, spare - int(target.sum()))]] += 1
            times = np.maximum(1, layout[members] // sizes[members])
            counts[members] = np.clip(target // times, 1, sizes[members])
    return counts


# Not closures: one that calls itself is a reference cycle, and keeps the model until the collector
# comes by.
def _tell_apart(fault: Callable[[Counts], str | None], groups: Counts) -> dict[int, str]:
    """The ones of `groups` that fail alone, found by halving."""
    found = fault(groups) if len(groups) else None
    if found is None:
        return {}
    if len(groups) == 1:
        return {int(groups[0]): found}
    half = len(groups) // 2
    parts = (_tell_apart(fault, part) for part in (groups[:half], groups[half:]))
    return {group: told for part in parts for group, told in part.items()}


def _together(fault: Callable[[Counts], str | None], groups: Counts) -> Counts:
    """Groups that are harmless alone and fail together: as few of `groups` as do.

    Ever smaller parts are left out while the rest still fails (Zeller & Hildebrandt 2002,
    "Simplifying and isolating failure-inducing input").
    """
    part = len(groups) // 2
    while part:
        start = 0
        while start < len(groups) and len(groups) > 1:
            rest = np.delete(groups, np.s_[start : start + part])
            if len(rest) and fault(rest) is not None:
                groups = rest
            else:
                start += part
        part //= 2
    return groups
