"""Sensitivity by trial: how much accuracy goes when a tenth of one group does.

As in figure 1 of RL-Pruner (Wang and Kindratenko, arXiv 2411.06463), and in Li et al. 2017,
"Pruning Filters for Efficient ConvNets". Knows nothing of steps, rewards or budgets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["PROBE_SHARE", "drops", "probe_masks"]

PROBE_SHARE = 0.1
"""Share of a group's remaining channels that a probe removes, at least one."""


def probe_masks(
    graph: ChannelGraph,
    rank: NDArray[np.int64],
    counts: NDArray[np.int64],
    floors: NDArray[np.int64],
    share: float = PROBE_SHARE,
) -> NDArray[np.bool_]:
    """(L + 1, C) keep masks: first the network itself, then one in which a single group is smaller.

    Args:
        graph: the dense network's channels.
        rank: (C,) inside the group, 0 = last to go.
        counts: (L,) channels that each group keeps.
        floors: (L,) the fewest that it can keep.
        share: of a group's channels to remove.
    """
    fewer = np.maximum(counts - np.maximum(1, np.round(share * counts)).astype(np.int64), floors)
    rows = [counts, *np.where(np.eye(counts.size, dtype=bool), np.minimum(fewer, counts), counts)]
    return np.stack([graph.keep_top(rank, row) for row in rows])


def drops(accuracies: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L,) how much lower than the first the other L of the (L + 1,) accuracies are, at least 0."""
    return np.maximum(0.0, accuracies[0] - accuracies[1:])
