"""A traced graph of which only some groups may lose channels; the others stay whole.

Pure bookkeeping on names and index arrays. `groups=` of the environments is read here, and turned
into groups of a graph. Knows nothing of models, budgets or actions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pruning_env.graph.structure import Adapter, Counts, Facts, Indices

if TYPE_CHECKING:
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Groups", "check_groups", "chosen_groups", "restricted_facts"]

Groups = str | Sequence[str]
"""`"all"`, `"inner"`, or patterns of layer names; see `chosen_groups`."""

ALL, INNER = "all", "inner"

_NOT = "!"

LEFT_WHOLE = "its group is left whole"


def check_groups(groups: Groups) -> None:
    """Raise `ValueError` unless `groups` has the form that `chosen_groups` reads."""
    if isinstance(groups, str):
        if groups in (ALL, INNER):
            return
    elif isinstance(groups, Sequence) and groups and all(_is_pattern(each) for each in groups):
        return
    raise ValueError(
        f"groups={groups!r} is not allowed; give '{ALL}', '{INNER}', or a list of patterns of "
        f"layer names, in which '{_NOT}' before a pattern leaves out what it matches"
    )


def chosen_groups(graph: ChannelGraph, groups: Groups) -> Counts:
    """Indices of the groups that `groups` means.

    Args:
        graph: The graph that has them.
        groups: `"all"`; `"inner"`, those in which the model adds up nothing of several layers, as
            inside residual blocks; or patterns of `fnmatch` for names of layers that lose outputs
            or per-channel parameters with a group. Groups that a pattern matches are in, all where
            no pattern includes any, but those that a pattern behind `"!"` matches.

    Raises:
        ValueError: It is none of these, a pattern matches no layer of any group, or no group is
            left.
    """
    check_groups(groups)
    if groups == ALL:
        return np.arange(len(graph.groups))
    if groups == INNER:
        indices = np.array([i for i, g in enumerate(graph.groups) if not g.summed], np.int64)
    else:
        include = [pattern for pattern in groups if not pattern.startswith(_NOT)]
        exclude = [pattern[len(_NOT) :] for pattern in groups if pattern.startswith(_NOT)]
        try:
            indices = graph.select(include or ("*",), exclude)
        except ValueError as error:
            raise ValueError(f"groups={groups!r}: {error}") from error
    if graph.groups and not indices.size:
        raise ValueError(
            f"groups={groups!r} leaves nothing to prune of "
            f"{', '.join(group.name for group in graph.groups[:5])}"
            f"{', ...' if len(graph.groups) > 5 else ''}"
        )
    return indices


def restricted_facts(facts: Facts, indices: Counts) -> tuple[Facts, Indices]:
    """What is known of the network if only these groups may lose channels.

    Args:
        facts: What is known of it.
        indices: Rising indices of groups.

    Returns:
        The facts, and (C,) the channel of the whole network that each channel is.
    """
    whole = [facts.groups[index] for index in indices]
    starts = np.cumsum([0, *(group.size for group in whole)])
    channels = np.concatenate(
        [np.zeros(0, np.int64), *(np.arange(g.start, g.start + g.size) for g in whole)]
    )
    total = sum(group.size for group in facts.groups)
    new = np.full(total + 1, -1, np.int64)  # the last entry is for -1, which stays
    new[channels] = np.arange(channels.size)

    def adapters(every: tuple[Adapter, ...]) -> tuple[Adapter, ...]:
        moved = [
            dataclasses.replace(each, entry=new[each.entry], exit=new[each.exit]) for each in every
        ]
        return tuple(each for each in moved if (each.entry >= 0).any() or (each.exit >= 0).any())

    slots = [dataclasses.replace(slot, channels=new[slot.channels]) for slot in facts.slots]
    attributes = [dataclasses.replace(a, channels=new[a.channels]) for a in facts.attributes]
    chosen = set(indices.tolist())
    makers = {slot.tensor.rpartition(".")[0] for slot in facts.slots if slot.role == "out"}
    left = {
        layer: LEFT_WHOLE
        for index, group in enumerate(facts.groups)
        if index not in chosen
        for layer in group.layers
        if layer in makers
    }
    restricted = dataclasses.replace(
        facts,
        groups=tuple(
            dataclasses.replace(group, start=int(start))
            for group, start in zip(whole, starts, strict=False)
        ),
        slots=tuple(slot for slot in slots if (slot.channels >= 0).any()),
        frozen={**left, **facts.frozen},
        widened=adapters(facts.widened),
        normalised=adapters(facts.normalised),
        attributes=tuple(a for a in attributes if (a.channels >= 0).any()),
        products=tuple((tuple(new[axis] for axis in axes), rows) for axes, rows in facts.products),
    )
    return restricted, channels


def _is_pattern(pattern: object) -> bool:
    return isinstance(pattern, str) and pattern not in ("", _NOT)
