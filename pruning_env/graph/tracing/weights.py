"""Weights that `forward` computes: a norm of rows, a mask, a fake quantisation of a parameter.

A computed weight is followed by the labels along each of its dimensions, never by one per element:
the element at (o, i, y, x) is there as long as the channels that own o and i are. This module is
the arithmetic of such labels; the operators are in `rules.weights`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Key = tuple[str, int]
"""A dimension of a stored tensor: its name, and the dimension."""


@dataclass(frozen=True)
class Factor:
    """One of the lengths that multiply to the length of a dimension.

    Attributes:
        labels: 1-D, one per index.
        keys: Dimensions of stored tensors that run along it.
    """

    labels: Tensor
    keys: frozenset[Key] = frozenset()


Axis = tuple[Factor, ...]
"""The factors of one dimension, slowest first; none where the length is 1."""


@dataclass(frozen=True)
class Weight:
    """A tensor that is computed from parameters, buffers and numbers only.

    Attributes:
        axes: Its dimensions.
        keeps_zeros: Whether a slice of it is zero, and nothing else of it changes, where that slice
            of its parameters is set to zero.
        sources: Names of the parameters with several dimensions that it is computed from.
        mixed: Labels of dimensions that were summed or normalised over.
    """

    axes: tuple[Axis, ...]
    keeps_zeros: bool = True
    sources: frozenset[str] = frozenset()
    mixed: tuple[Tensor, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(math.prod(len(f.labels) for f in axis) for axis in self.axes)

    def dim(self) -> int:
        """Number of its dimensions."""
        return len(self.axes)

    def labels(self) -> list[Tensor]:
        """All labels that own part of it."""
        return [factor.labels for axis in self.axes for factor in axis] + list(self.mixed)

    def keys(self) -> frozenset[Key]:
        """Dimensions of stored tensors that run along any of its own."""
        return frozenset(k for axis in self.axes for factor in axis for k in factor.keys)

    def merged(self, dim: int) -> Factor | None:
        """Dimension `dim` as one factor; None where several of its factors may shrink."""
        axis = self.axes[dim]
        own = [i for i, factor in enumerate(axis) if factor.labels.any()]
        if len(axis) == 1:
            return axis[0]
        if len(own) > 1 or not axis:
            return None
        place = own[0] if own else 0
        inner = math.prod(len(f.labels) for f in axis[place + 1 :])
        outer = math.prod(len(f.labels) for f in axis[:place])
        labels = axis[place].labels.repeat_interleave(inner).repeat(outer)
        return Factor(labels, axis[place].keys)

    def reshaped(self, shape: Sequence[int]) -> Weight:
        """Another view of the same elements.

        Raises:
            ValueError: When it would cut a factor.
        """
        factors = [factor for axis in self.axes for factor in axis]
        axes = []
        for size in shape:
            axis: list[Factor] = []
            while math.prod(len(f.labels) for f in axis) < size and factors:
                axis.append(factors.pop(0))
            if math.prod(len(f.labels) for f in axis) != size:
                raise ValueError("a view of a computed weight cuts its channels")
            axes.append(tuple(axis))
        return replace(self, axes=tuple(axes))

    def without(self, dims: Iterable[int], *, keepdim: bool) -> Weight:
        """The result of a reduction over `dims`."""
        gone = {d % max(self.dim(), 1) for d in dims}
        axes = [() if d in gone else axis for d, axis in enumerate(self.axes)]
        left = axes if keepdim else [axis for d, axis in enumerate(axes) if d not in gone]
        mixed = [f.labels for d in sorted(gone) for f in self.axes[d]]
        return replace(self, axes=tuple(left), keeps_zeros=False, mixed=(*self.mixed, *mixed))


def plain(labels: Tensor) -> Weight:
    """A label tensor that varies along one dimension at the most, as a weight.

    Raises:
        ValueError: When it varies along several.
    """
    varied = [d for d in range(labels.dim()) if labels.shape[d] > 1 and labels.stride(d) != 0]
    if len(varied) > 1:
        raise ValueError("a computed weight meets channels in several dimensions")
    axes: list[Axis] = []
    for d, size in enumerate(labels.shape):
        line = labels[tuple(slice(None) if e == d else 0 for e in range(labels.dim()))]
        axes.append((Factor(line if d in varied else torch.zeros_like(line)),) if size > 1 else ())
    return Weight(tuple(axes))
