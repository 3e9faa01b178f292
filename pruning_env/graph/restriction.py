"""A traced graph of which only some groups may lose channels; the others stay whole.

Pure bookkeeping on names and index arrays. Knows nothing of models, budgets or actions.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pruning_env.graph.structure import Adapter, Counts, Facts, Indices

__all__ = ["restricted_facts"]

LEFT_WHOLE = "its group is left whole"


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
