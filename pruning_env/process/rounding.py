"""Widths in units of channels: the steps in which a group may shrink.

Hardware likes widths that are multiples of 8 or 16. With `round_to` above 1, channels go in units:
a group keeps its dense width or a multiple of `round_to`, and never less than one unit. Knows
nothing of actions or models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["WidthUnits"]


class WidthUnits:
    """How many units each group still holds, and what is left when some go.

    A dense width that is no multiple of `round_to` ends in a partial unit, which goes first. Groups
    no wider than one unit never shrink.

    Args:
        sizes: (L,) int64 channels of each group in the dense network.
        round_to: channels in a unit, an integer of at least 1.

    Attributes:
        round_to: as given.
        floors: (L,) int64, the fewest channels that each group can keep.

    Raises:
        ValueError: `round_to` is no integer of at least 1, or no group can shrink.
    """

    def __init__(self, sizes: np.ndarray, round_to: int = 1) -> None:
        if not isinstance(round_to, int | np.integer) or isinstance(round_to, bool) or round_to < 1:
            raise ValueError(f"round_to={round_to!r} is not allowed; give an integer of at least 1")
        self._sizes = np.asarray(sizes, dtype=np.int64)
        if self._sizes.size and round_to >= self._sizes.max():
            raise ValueError(
                f"round_to={round_to} leaves nothing to prune; the widest group has "
                f"{self._sizes.max()} channels, so give at most {self._sizes.max() - 1}"
            )
        self.round_to = int(round_to)
        self.floors: np.ndarray = np.minimum(self.round_to, self._sizes)
        self.floors.setflags(write=False)

    def left(self, counts: np.ndarray) -> np.ndarray:
        """(..., L) units that groups of `counts` (..., L) channels can still give."""
        return self._ceil(counts) - 1

    def given(self, counts: np.ndarray) -> np.ndarray:
        """(..., L) units that groups of `counts` (..., L) channels have given."""
        return self._ceil(self._sizes) - self._ceil(counts)

    def take(self, counts: np.ndarray, units: np.ndarray) -> np.ndarray:
        """(..., L) channels left when groups of `counts` give `units`, at most what they have."""
        return np.where(units > 0, (self._ceil(counts) - units) * self.round_to, counts)

    def reachable(self, counts: np.ndarray) -> bool:
        """Whether every one of `counts` (L,) is a width that its group can have."""
        whole = (counts % self.round_to == 0) & (counts >= self.floors) & (counts < self._sizes)
        return bool((whole | (counts == self._sizes)).all())

    def _ceil(self, counts: Any) -> np.ndarray:
        return -(-np.asarray(counts, dtype=np.int64) // self.round_to)
