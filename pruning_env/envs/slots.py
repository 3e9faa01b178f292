"""When the slots of a vector environment restart, by Gymnasium's conventions.

Knows nothing of what a slot does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from pruning_env.arguments import check_count

__all__ = ["SlotEpisodes", "chosen_slots"]


class SlotEpisodes:
    """Which slots' episodes go on, how long they may, and what happens after their end.

    Args:
        num_envs: N, how many slots there are.
        autoreset_mode: an `AutoresetMode` or its value: `"NextStep"`, `"SameStep"`, `"Disabled"`.
        max_episode_steps: steps after which an episode is cut short, at least 1; None: none.

    Attributes:
        mode: as given.
        ended: (N,) bool, which episodes are over and not restarted yet.

    Raises:
        ValueError: a bad argument.
    """

    def __init__(
        self, num_envs: int, autoreset_mode: str | AutoresetMode, max_episode_steps: int | None
    ) -> None:
        try:
            self.mode = AutoresetMode(autoreset_mode)
        except ValueError:
            allowed = ", ".join(repr(mode.value) for mode in AutoresetMode)
            raise ValueError(
                f"autoreset_mode={autoreset_mode!r} is not allowed; give one of {allowed}"
            ) from None
        if max_episode_steps is not None:
            max_episode_steps = check_count("max_episode_steps", max_episode_steps)
        self._most = max_episode_steps
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self.ended = np.zeros(num_envs, dtype=np.bool_)

    def to_step(self) -> NDArray[np.bool_]:
        """(N,) which slots a step moves; the others' episodes are over, and it restarts them.

        Raises:
            ResetNeeded: an episode is over, and by `Disabled` nothing restarts it.
        """
        if self.mode is AutoresetMode.DISABLED and self.ended.any():
            raise ResetNeeded(
                f"slot {np.flatnonzero(self.ended)[0]}: the episode is over; call "
                'reset(options={"reset_mask": terminations | truncations}) before step()'
            )
        return ~self.ended

    def step(self, moved: NDArray[np.bool_], terminated: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Count a step of the slots that `moved`; the others begin. (N,) which are cut short."""
        self.begin(~moved)
        self._steps[moved] += 1
        truncated = np.zeros_like(moved) if self._most is None else self._steps >= self._most
        self.ended = terminated | truncated
        return truncated

    def begin(self, slots: Any) -> None:
        """Let episodes begin, in the slots of an index or a mask."""
        self._steps[slots] = 0
        self.ended[slots] = False


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
