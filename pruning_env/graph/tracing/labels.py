"""Label arithmetic for tracing channels: label tensors, and the space in which labels are merged.

A *label tensor* has the shape of an activation and holds, at each position, the integer label of
the channel that produced the value. Labels change along one dimension only (the channel dimension),
so a label tensor is kept as an expanded view: dimensions along which labels are constant have
stride 0 and cost nothing. This module knows nothing of models, operators or pruning.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

FIXED = 0
"""The label of what no removable channel produced: inputs, constants, results of unknown ops."""


def fixed(shape: tuple[int, ...]) -> Tensor:
    """A label tensor that is `FIXED` everywhere."""
    return torch.zeros((), dtype=torch.int64).expand(shape)


def varying(labels: Tensor) -> list[int]:
    """Dimensions along which a label tensor may change."""
    return [d for d in range(labels.dim()) if labels.shape[d] > 1 and labels.stride(d) != 0]


def compact(labels: Tensor) -> Tensor:
    """The same labels with every constant dimension cut to length 1."""
    for d in range(labels.dim()):
        if labels.shape[d] > 1 and labels.stride(d) == 0:
            labels = labels.narrow(d, 0, 1)
    return labels


def restride(labels: Tensor) -> Tensor:
    """Give stride 0 to every dimension along which the labels turn out to be constant."""
    small = compact(labels)
    for d in varying(small):
        first = small.narrow(d, 0, 1)
        if torch.equal(small, first.expand_as(small)):
            small = first
    return small.expand(labels.shape)


def along(labels: Tensor, dim: int) -> Tensor:
    """The 1-D labels along `dim`, read at index 0 of every other dimension."""
    dim %= labels.dim()
    index = tuple(slice(None) if d == dim else 0 for d in range(labels.dim()))
    return labels[index]


def spread(labels: Tensor, shape: tuple[int, ...], dim: int) -> Tensor:
    """A label tensor of `shape` that follows the 1-D `labels` along `dim`."""
    dim %= len(shape)
    return labels.reshape([-1 if d == dim else 1 for d in range(len(shape))]).expand(shape)


class LabelSpace:
    """Hands out labels and records which of them must live and die together.

    Merges and freezes are only recorded while a graph is interpreted; `components` resolves all of
    them at once, so their order does not matter.
    """

    def __init__(self) -> None:
        self._next = FIXED + 1
        self._edges: list[tuple[np.ndarray, np.ndarray]] = []
        self._frozen: list[tuple[np.ndarray, str]] = []

    def fresh(self, count: int) -> Tensor:
        """`count` new labels, 1-D."""
        start, self._next = self._next, self._next + count
        return torch.arange(start, self._next, dtype=torch.int64)

    def merge(self, a: Tensor, b: Tensor, reason: str) -> None:
        """Tie `a` to `b` element by element; what meets `FIXED` is frozen with `reason`."""
        left, right = (x.reshape(-1) for x in torch.broadcast_tensors(a, b))
        apart = left != right
        # A pair as one number: the distinct ones of pairs take tens of times longer to find.
        pairs = torch.unique(left[apart] * self._next + right[apart])
        left, right = pairs // self._next, pairs % self._next
        free = (left != FIXED) & (right != FIXED)
        self._edges.append((left[free].numpy(), right[free].numpy()))
        self.freeze(torch.cat([left[~free], right[~free]]), reason)

    def freeze(self, labels: Tensor, reason: str, *, foremost: bool = False) -> None:
        """Forbid the removal of these labels; a `foremost` reason is told before all others."""
        unique = torch.unique(compact(labels))
        unique = unique[unique != FIXED]
        if unique.numel():
            self._frozen.insert(0 if foremost else len(self._frozen), (unique.numpy(), reason))

    def components(self) -> tuple[np.ndarray, dict[int, str]]:
        """Resolve every merge and freeze.

        Returns:
            The component of each label, `(number of labels,)`, and the first reason for each frozen
            component. The component of `FIXED` is always frozen.
        """
        heads = [np.zeros(0, np.int64), *(a for a, _ in self._edges)]
        tails = [np.zeros(0, np.int64), *(b for _, b in self._edges)]
        rows, columns = np.concatenate(heads), np.concatenate(tails)
        graph = coo_array(
            (np.ones(rows.size, np.int8), (rows, columns)), shape=(self._next, self._next)
        )
        _, component = connected_components(graph, directed=False)
        component = component.astype(np.int64)
        reasons = {int(component[FIXED]): "fixed by construction"}
        for labels, reason in self._frozen:
            for root in np.unique(component[labels]).tolist():
                reasons.setdefault(root, reason)
        return component, reasons
