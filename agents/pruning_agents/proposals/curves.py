"""Sensitivity curves: what pruning one group alone does, for every group and some widths.

Who looks at them, and on which images they are measured, is said elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pruning_env.evaluation.metrics import Metrics
from pruning_env.process.dynamics import PruningDynamics

__all__ = ["MAX_PROBES", "accuracy_curves", "loss_curves", "rehearsed_curves"]

#: Probes per group at most; a finer curve only follows the noise of a finite set of images.
MAX_PROBES = 8

#: Probes between two moves of the progress bar; several at once are quicker on a GPU.
_TOGETHER = 16

Curves = list[NDArray[np.float64]]


def accuracy_curves(dynamics: PruningDynamics, probes: int) -> Curves:
    """For each group, (units + 1,) accuracy lost when it alone has given 0, 1, ... units.

    Measured on search-val at evenly spaced widths, at most one evaluation a probe, interpolated
    between them, and never falling as a group shrinks.

    Args:
        dynamics: of the environment.
        probes: widths per group, the floor included; with 0, all groups count as equally sensitive.
    """
    dense = dynamics.evaluator.dense.accuracy
    return _curves(
        dynamics,
        probes,
        lambda masks: [
            dense - metrics.accuracy for metrics in dynamics.evaluator.evaluate_many(masks)
        ],
    )


def loss_curves(dynamics: PruningDynamics, probes: int) -> Curves:
    """For each group, (units + 1,) rise of the loss on search-train; else as `accuracy_curves`.

    No evaluation of a search, although it takes as long as one a probe.

    Raises:
        ValueError: the environment has no images.
    """
    return rehearsed_curves(dynamics, probes, lambda dense, pruned: pruned.loss - dense.loss)


def rehearsed_curves(
    dynamics: PruningDynamics,
    probes: int,
    lost: Callable[[Metrics, Metrics], float],
    *,
    progress_bar: bool = False,
) -> Curves:
    """For each group, (units + 1,) of what `lost` says, on images of search-train.

    Args:
        dynamics: of the environment.
        probes: as for `accuracy_curves`.
        lost: what a pruned network has lost, of the dense one's metrics and its own.
        progress_bar: whether to show the probes made on the standard error stream.

    Raises:
        ValueError: the environment has no images.
    """

    def rehearse(masks: Sequence[NDArray[np.bool_]]) -> list[float]:
        (dense,) = dynamics.evaluator.rehearse_many([dynamics.graph.full()])
        judged: list[Metrics] = []
        with tqdm(total=len(masks), desc="probes", disable=not progress_bar) as bar:
            for start in range(0, len(masks), _TOGETHER):
                judged += dynamics.evaluator.rehearse_many(masks[start : start + _TOGETHER])
                bar.update(len(judged) - bar.n)
        return [lost(dense, metrics) for metrics in judged]

    return _curves(dynamics, probes, rehearse)


def _curves(
    dynamics: PruningDynamics,
    probes: int,
    lost: Callable[[Sequence[NDArray[np.bool_]]], list[float]],
) -> Curves:
    graph, units = dynamics.graph, dynamics.units
    left = units.left(graph.sizes)
    if probes == 0:
        return [np.linspace(0.0, 1.0, count + 1) for count in left]
    given = [
        np.unique(np.linspace(0, count, probes + 1).round().astype(np.int64)) for count in left
    ]
    masks = []
    for group, points in enumerate(given):
        for point in points[1:]:
            taken = np.where(np.arange(left.size) == group, point, 0)
            masks.append(graph.keep_top(dynamics.rank, units.take(graph.sizes, taken)))
    judged = iter(lost(masks))
    return [
        np.interp(
            np.arange(count + 1),
            points,
            np.maximum.accumulate([0.0, *(next(judged) for _ in points[1:])]),
        )
        for count, points in zip(left, given, strict=True)
    ]
