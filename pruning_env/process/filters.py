"""Filters and neurons: how many of them the channels of a network are.

A filter is an output channel of one convolution, a neuron one of a linear layer. Layers that must
lose channels together lose a filter each, so a channel of theirs is several filters. Knows the
channel graph and nothing else.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["filters_at", "filters_per_channel"]


def filters_per_channel(graph: ChannelGraph) -> NDArray[np.int64]:
    """(L,) filters and neurons that go with one channel of each group.

    Depthwise convolutions make no channels and have no filters of their own; what cannot be removed
    is not counted.
    """
    shapes = graph.shapes
    filters = np.zeros(len(graph.groups), np.int64)
    makers = {
        (slot.tensor, slot.dim): slot.channels[slot.channels >= 0]
        for slot in graph.slots
        if slot.role == "out" and len(shapes[slot.tensor]) >= 2
    }
    for channels in makers.values():
        filters += np.bincount(graph.group_index[channels], minlength=len(filters))
    return filters // graph.sizes


def filters_at(graph: ChannelGraph, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(...) removable filters and neurons that are left with channel counts (..., L).

    Of the whole model, also where only some of its groups may lose channels.
    """
    each, whole = filters_per_channel(graph), graph.whole
    elsewhere = filters_per_channel(whole) @ whole.sizes - each @ graph.sizes
    return np.asarray(counts @ each + elsewhere, np.int64)
