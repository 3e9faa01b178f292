"""Which slots of a vector environment a reset is for: Gymnasium's `options["reset_mask"]`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["chosen_slots"]


def chosen_slots(
    options: dict[str, Any] | None, num_envs: int
) -> tuple[NDArray[np.bool_], dict[str, Any] | None]:
    """Which slots to reset, and the options without that.

    Args:
        options: Of the reset; without a mask, or None, it is for all slots.
        num_envs: N, how many slots there are.

    Returns:
        (N,) bool, an array of its own, and the other options.

    Raises:
        ValueError: The mask is not (N,) bool with at least one True.
    """
    if not isinstance(options, dict) or "reset_mask" not in options:
        return np.ones(num_envs, dtype=np.bool_), options
    mask = options["reset_mask"]
    if (
        not isinstance(mask, np.ndarray)
        or mask.dtype != np.bool_
        or mask.shape != (num_envs,)
        or not mask.any()
    ):
        raise ValueError(
            f"options['reset_mask']={mask!r} is not allowed; give a bool array of shape "
            f"({num_envs},) with at least one True"
        )
    return mask.copy(), {key: value for key, value in options.items() if key != "reset_mask"}
