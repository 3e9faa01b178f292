"""A formula for the time of a pruned network, fitted to networks that were timed.

Time is taken for a sum of what a network does: a constant, multiply-accumulates, values that its
layers write, weights that it reads, and all of that once more for layers whose widths do not suit
the runtime, being no multiples of its block. The prices are found by least squares on relative
errors, none below 0. Knows nothing of clocks or files.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.structure import Counts

__all__ = ["BLOCKS", "LatencyModel", "fit_latency"]

BLOCKS = (1, 4, 8, 16)
"""Multiples of which a runtime may want widths to be; which fits best decides."""

_RIDGE = 1e-2  # of the prices, in units of the largest time that a summand can make up
_FOLDS = 5


@dataclass(frozen=True)
class LatencyModel:
    """Time / time of the dense network, at numbers of channels.

    Attributes:
        graph: of the network.
        block: multiples that the runtime wants, of `BLOCKS`; 1 if it does not care.
        prices: (summands,) of `_work`.
    """

    graph: ChannelGraph
    block: int
    prices: NDArray[np.float64]

    def ratio(self, counts: Counts) -> NDArray[np.float64]:
        """(...,) of counts (..., L)."""
        return _work(self.graph, np.asarray(counts), self.block) @ self.prices


def fit_latency(graph: ChannelGraph, counts: Counts, ratios: NDArray[np.float64]) -> LatencyModel:
    """The formula that predicts best what it was not shown, among those of `BLOCKS`.

    Args:
        graph: of the network.
        counts: (N, L) channels kept.
        ratios: (N,) time of each / time of the dense network.
    """
    fold = np.arange(len(ratios)) % _FOLDS

    def error(block: int) -> float:
        work = _work(graph, counts, block)
        errors = np.empty(len(ratios))
        for out in range(_FOLDS):
            prices = _prices(work[fold != out], ratios[fold != out])
            errors[fold == out] = work[fold == out] @ prices / ratios[fold == out] - 1
        return float(np.median(np.abs(errors)))

    block = min(BLOCKS, key=error)
    return LatencyModel(graph, block, _prices(_work(graph, counts, block), ratios))


def _prices(work: NDArray[np.float64], ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.optimize import nnls  # slow to import, and environments without a table need none

    count = work.shape[1]
    weighted = np.vstack([work / ratios[:, None], np.sqrt(_RIDGE) * np.eye(count)])
    return nnls(weighted, np.r_[np.ones(len(ratios)), np.zeros(count)])[0]


def _work(graph: ChannelGraph, counts: Counts, block: int) -> NDArray[np.float64]:
    """(..., summands) of counts (..., L), each as a share of the dense network's."""
    return _sums(graph, counts, block) / _scale(graph)


def _scale(graph: ChannelGraph) -> NDArray[np.float64]:
    one, macs, written, weights, *_ = _sums(graph, graph.sizes, 1)
    layers = len(graph.facts.multiplications)
    return np.maximum([one, macs, written, weights, macs, written, layers], 1.0)


def _sums(graph: ChannelGraph, counts: Counts, block: int) -> NDArray[np.float64]:
    written, odd_macs, odd_written, odd_layers = (np.zeros(counts.shape[:-1]) for _ in range(4))
    for name, rows in graph.facts.multiplications:
        lengths, shape = graph.widths.lengths(name, counts), graph.facts.shapes[name]
        wrote = rows * lengths[..., 0]
        # A dimension that is 1 in the dense network, too, is a depthwise layer's.
        wide = [dim for dim in (0, 1) if shape[dim] > 1]
        odd = (lengths[..., wide] % block != 0).any(-1)
        written = written + wrote
        odd_macs = odd_macs + odd * rows * lengths.prod(-1)
        odd_written = odd_written + odd * wrote
        odd_layers = odd_layers + odd
    macs, weights = (np.asarray(f(counts), float) for f in (graph.macs_at, graph.params_at))
    one = np.ones(counts.shape[:-1])
    # MACs are of one image, rows of those that were traced.
    odd_macs = odd_macs / graph.facts.batch
    return np.stack([one, macs, written, weights, odd_macs, odd_written, odd_layers], -1)
