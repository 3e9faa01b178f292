"""Parameters and multiply-accumulates in closed form: sums of products of numbers of channels.

Knows tensors by their names, shapes and the channels along their dimensions only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Cost", "Widths"]

Counts = NDArray[np.int64]
Product = tuple[tuple[NDArray[np.int64], ...], int]
"""The channels along each of its axes, and multiply-accumulates per choice of one of each."""


class Widths:
    """How long the dimensions of tensors and products are at given numbers of channels.

    Args:
        sizes: `(L,)`, channels per group.
        shapes: Of all tensors by name.
        lines: `(length,)` int64 by tensor and dimension: the channel that owns each index, -1 where
            it always stays. Dimensions that are not in it keep their length.
        products: Products without a stored weight.
    """

    def __init__(
        self,
        sizes: Counts,
        shapes: Mapping[str, tuple[int, ...]],
        lines: Mapping[tuple[str, int], NDArray[np.int64]],
        products: Sequence[Product],
    ) -> None:
        self._groups, self._shapes, self._products = len(sizes), shapes, products
        group_index = np.repeat(np.arange(len(sizes)), sizes)
        places = {
            (f"product {i}", d): channels
            for i, (axes, _) in enumerate(products)
            for d, channels in enumerate(axes)
        }
        self._index: dict[tuple[str, int], int] = {}
        seen: dict[bytes, int] = {}
        constant, per_group = [1], [np.zeros(len(sizes), np.int64)]  # axis 0 has width 1
        for place, channels in (dict(lines) | places).items():
            key = channels.tobytes()
            if key not in seen:
                seen[key] = len(constant)
                owned = channels[channels >= 0]
                constant.append(len(channels) - len(owned))
                indices = np.bincount(group_index[owned], minlength=len(sizes))
                per_group.append(indices // sizes)
            self._index[place] = seen[key]
        self._constant = np.array(constant, np.int64)
        self._per_group = np.stack(per_group).astype(np.int64)

    def at(self, counts: Counts) -> Counts:
        """The length of every distinct axis, `(..., axes)`, at counts `(..., L)`."""
        counts = np.asarray(counts, np.int64)
        if counts.shape[-1:] != (self._groups,):
            raise ValueError(f"counts must have {self._groups} entries, got shape {counts.shape}")
        return self._constant + counts @ self._per_group.T

    def lengths(self, name: str, counts: Counts) -> Counts:
        """Lengths of a tensor's dimensions, `(..., dimensions)`, at counts `(..., L)`."""
        widths = self.at(counts)
        every = [
            widths[..., axis]
            if (axis := self._index.get((name, dim))) is not None
            else np.full(widths.shape[:-1], size)
            for dim, size in enumerate(self._shapes[name])
        ]
        return np.stack(every, -1)

    def of_tensor(self, name: str) -> tuple[tuple[int, ...], int]:
        """The axes of a tensor, in order of their numbers, and the product of its other lengths."""
        axes, rest = [], 1
        for dim, size in enumerate(self._shapes[name]):
            if (axis := self._index.get((name, dim))) is None:
                rest *= size
            else:
                axes.append(axis)
        return tuple(sorted(axes)), rest

    def of_products(self) -> list[tuple[tuple[int, ...], int]]:
        """The axes of every product, and its multiply-accumulates per choice of their channels."""
        return [
            (tuple(sorted(self._index[f"product {i}", d] for d in range(len(axes)))), rows)
            for i, (axes, rows) in enumerate(self._products)
        ]


class Cost:
    """A sum of factors times products of widths.

    Args:
        widths: The widths.
        tensors: `(name, factor)`: the factor counts once per element of the tensor.
        products: Whether the products of `widths` count.
        constant: What no channel changes.
        divisor: Of the sum.
    """

    def __init__(
        self,
        widths: Widths,
        tensors: Iterable[tuple[str, int]],
        *,
        products: bool = False,
        constant: int = 0,
        divisor: int = 1,
    ) -> None:
        self._widths, self._divisor = widths, divisor
        terms = widths.of_products() if products else []
        for name, factor in tensors:
            axes, rest = widths.of_tensor(name)
            terms.append((axes, factor * rest))
        factors: dict[tuple[int, ...], int] = {(0,): constant}
        for axes, factor in terms:
            key = axes or (0,)
            factors[key] = factors.get(key, 0) + factor
        depth = max(map(len, factors))
        padded = [key + (0,) * (depth - len(key)) for key in factors]
        self._factors = np.array(list(factors.values()), np.int64)
        self._axes = np.array(padded, np.int64)

    def at(self, counts: Counts) -> int | Counts:
        """The sum at counts `(L,)`, or at each of `(..., L)`."""
        total = (self._widths.at(counts)[..., self._axes].prod(-1) @ self._factors) // self._divisor
        return int(total) if total.ndim == 0 else total
