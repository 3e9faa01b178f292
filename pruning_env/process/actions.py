"""Actions: how one vector of numbers says how many channels each group loses.

An action kind owns its Gymnasium space, checks what an agent hands in, and splits a number of
channels over the groups. Knows nothing of models, accuracy or episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces

from pruning_env.arguments import check_choice, check_positive
from pruning_env.process.allocation import TIE_DECIMALS, allocate, distribution
from pruning_env.process.rounding import WidthUnits


class ActionKind(Protocol):
    """What the dynamics and the environment need from an action.

    Attributes:
        free: whether an action itself says how much goes, anything from nothing to all, instead of
            only how the environment's step size is spread.
        turns: whether each step is one group's, in the order of the groups.
    """

    free: bool
    turns: bool

    def space(self) -> spaces.Space[np.ndarray]:
        """A fresh Gymnasium space of the raw actions."""

    def parse(self, action: Any, step: int = 0) -> np.ndarray:
        """Check a raw action; return it as (L,) float64 in [-1, 1]. `ValueError` if it is bad.

        Args:
            action: raw action.
            step: steps taken before it.
        """

    def asks(self, action: np.ndarray, usual: int, available: np.ndarray) -> int:
        """How many channels the action wants to go in all; may be more than there are.

        Args:
            action: (L,) parsed action.
            usual: the environment's step size.
            available: (L,) what each group can give at most.
        """

    def split(
        self, action: np.ndarray, total: int, available: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """(..., L) int64 channels that each group gives now.

        Args:
            action: (..., L) parsed action, or one per row.
            total: channels to give in all.
            available: (..., L) what each group can give at most.
            given: (..., L) what each gave since the dense network.
        """


class BoxAction:
    """One number in [-1, 1] per group: the space and the checks, not what the numbers mean.

    Args:
        sizes: (L,) number of channels of each group in the dense network.
    """

    turns = False

    def __init__(self, sizes: np.ndarray) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)

    def space(self) -> spaces.Box:
        """`Box(-1, 1, (L,), float32)`: symmetric and normalised, as stock agents expect."""
        return spaces.Box(-1.0, 1.0, (self.sizes.size,), np.float32)

    def parse(self, action: Any, step: int = 0) -> np.ndarray:
        """Return `action` as (L,) float64 in [-1, 1].

        Numbers beyond the box are clipped, ±inf included: an agent with an unsquashed Gaussian
        makes them all the time. NaN has no nearest valid action and is refused.

        Raises:
            ValueError: wrong shape, NaN, or not real numbers.
        """
        expected = f"a vector of {self.sizes.size} real numbers in [-1, 1]"
        try:
            values = np.asarray(action)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"action cannot be read as {expected}: {error}") from error
        if values.dtype.kind not in "fiu":
            raise ValueError(f"action has dtype {values.dtype}; give {expected}")
        if values.shape != self.sizes.shape:
            raise ValueError(f"action has shape {values.shape}; give {expected}")
        if np.isnan(values).any():
            where = np.flatnonzero(np.isnan(values)).tolist()
            raise ValueError(f"action is NaN at index {where}; give {expected}")
        return np.clip(values.astype(np.float64), -1.0, 1.0)

    def parse_many(self, actions: Any, steps: np.ndarray | None = None) -> np.ndarray:
        """`parse` for each of N raw actions, as (N, L) float64 in [-1, 1].

        Args:
            actions: raw actions.
            steps: (N,) steps taken before each; None for none.

        Raises:
            ValueError: as `parse`, naming the action's place as `slot`, or not one per slot.
        """
        values = actions if isinstance(actions, np.ndarray) else None
        if (
            values is not None
            and values.dtype.kind in "fiu"
            and values.shape[1:] == self.sizes.shape
            and not np.isnan(values).any()
        ):
            return np.clip(values.astype(np.float64), -1.0, 1.0)
        try:
            rows = list(actions)
        except TypeError:
            raise ValueError(
                f"actions={actions!r} is not allowed; give one action per slot"
            ) from None
        parsed = []
        for slot, row in enumerate(rows):
            try:
                parsed.append(self.parse(row))
            except ValueError as error:
                raise ValueError(f"slot {slot}: {error}") from error
        return np.array(parsed).reshape(-1, self.sizes.size)


class DistributionAction(BoxAction):
    """`action="distribution"`: logits of how the step's channels are spread over the groups.

    Args:
        sizes: (L,) number of channels of each group in the dense network.
        logit_scale: finite and above 0; see `distribution`.
    """

    free = False

    def __init__(self, sizes: np.ndarray, logit_scale: float) -> None:
        super().__init__(sizes)
        self.logit_scale = check_positive("logit_scale", logit_scale)

    def asks(self, action: np.ndarray, usual: int, available: np.ndarray) -> int:
        """The environment's step size, whatever the action."""
        del action, available
        return usual

    def split(
        self, action: np.ndarray, total: int, available: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """(..., L) int64 channels that each group gives; see `distribution` and `allocate`."""
        p = distribution(action, self.sizes, self.logit_scale)
        return allocate(total, p, available, given)


class RatioAction(BoxAction):
    """`action="ratio"`: the fraction that each group loses of what it still holds above its floor.

    The fraction is `(1 + action_l) / 2`: -1 removes nothing, +1 goes down to the floor, and the
    zero action takes half of every group. The fractions' sum is rounded to a whole number of
    channels, ties up, and split by `allocate`. Where a constraint wants more or fewer in all, the
    fractions are multiplied by one number (1 is the most that a group can lose; if all are 0,
    groups lose alike).

    Args:
        sizes: (L,) number of channels of each group in the dense network.
    """

    free = True

    def asks(self, action: np.ndarray, usual: int, available: np.ndarray) -> int:
        """The fractions of `available`, summed and rounded."""
        del usual
        return math.floor(round(float(self._wanted(action, available).sum()), TIE_DECIMALS) + 0.5)

    def split(
        self, action: np.ndarray, total: int, available: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """(L,) int64 channels that each group gives now, in proportion to its fraction of them."""
        del given  # a fraction is of what is left, so what went before does not matter
        return allocate(total, self._wanted(action, available), available)

    def _wanted(self, action: np.ndarray, available: np.ndarray) -> np.ndarray:
        return 0.5 * (1.0 + action) * available


class LayerwiseAction(RatioAction):
    """`action="layerwise"`: one number, for one group; the groups take turns, in their order.

    AMC's order (arXiv 1802.03494): the k-th step of an episode is the k-th group's, so an episode
    of L steps visits each group once. The number says what `ratio` says of a group: the fraction
    `(1 + action) / 2` of what it holds above its floor goes.

    Args:
        sizes: (L,) number of channels of each group in the dense network.
    """

    turns = True

    def __init__(self, sizes: np.ndarray) -> None:
        super().__init__(sizes)
        self._number = BoxAction(self.sizes[:1])

    def space(self) -> spaces.Box:
        """`Box(-1, 1, (1,), float32)`."""
        return self._number.space()

    def parse(self, action: Any, step: int = 0) -> np.ndarray:
        """(L,) float64: the number where its group is, and -1, which is nothing, elsewhere.

        Raises:
            ValueError: as in the other kinds.
        """
        return self._placed(self._number.parse(action)[None], np.array([step]))[0]

    def parse_many(self, actions: Any, steps: np.ndarray | None = None) -> np.ndarray:
        """`parse` for each of N raw actions; see `BoxAction.parse_many`."""
        numbers = self._number.parse_many(actions)
        if steps is None:
            steps = np.zeros(len(numbers), dtype=np.int64)
        if len(steps) != len(numbers):
            raise ValueError(
                f"actions: {len(numbers)} given for {len(steps)} states; give one each"
            )
        return self._placed(numbers, steps)

    def _placed(self, numbers: np.ndarray, steps: np.ndarray) -> np.ndarray:
        turn = steps[:, None] == np.arange(self.sizes.size)
        return np.where(turn, numbers, -1.0)


def split_by_turns(
    kind: ActionKind, step: int, left: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """(L,) units that a step can take, and, where groups take turns, those that are left for later.

    Args:
        kind: how actions are split.
        step: steps taken before it.
        left: (L,) units that each group can give.
    """
    if not kind.turns:
        return left, None
    places = np.arange(left.size)
    return np.where(places == step, left, 0), np.where(places > step, left, 0)


class CountsAction:
    """`action="counts"`: how many units each group is to keep above its floor.

    A group that holds more loses the rest; one that holds as many or fewer loses nothing. Where a
    constraint wants more or fewer in all, the losses are multiplied by one number, as by `ratio`.

    Args:
        sizes: (L,) number of channels of each group in the dense network.
        round_to: channels in a unit.
    """

    free = True
    turns = False

    def __init__(self, sizes: np.ndarray, round_to: int = 1) -> None:
        sizes = np.asarray(sizes, dtype=np.int64)
        self._removable = WidthUnits(sizes, round_to).left(sizes)

    def space(self) -> spaces.MultiDiscrete:
        """`MultiDiscrete`: per group 0, its floor, to all units that it can lose, dense."""
        return spaces.MultiDiscrete(self._removable + 1)

    def parse(self, action: Any, step: int = 0) -> np.ndarray:
        """Return `action` as (L,) float64: from -1, dense, to 1, the floor.

        Raises:
            ValueError: wrong shape, not integers, or outside the space.
        """
        values = np.asarray(action)
        if (
            values.dtype.kind not in "iu"
            or values.shape != self._removable.shape
            or ((values < 0) | (values > self._removable)).any()
        ):
            raise ValueError(
                f"action={action!r} is not allowed; give {self._removable.size} integers from 0 to "
                f"at most {self._removable.tolist()}"
            )
        return 1.0 - 2.0 * values / np.maximum(self._removable, 1)

    def asks(self, action: np.ndarray, usual: int, available: np.ndarray) -> int:
        """All that is there beyond what is to be kept."""
        del usual
        return int(self._wanted(action, available).sum())

    def split(
        self, action: np.ndarray, total: int, available: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """(L,) int64 units that each group gives now, in proportion to what it is to lose."""
        del given
        return allocate(total, self._wanted(action, available), available)

    def _wanted(self, action: np.ndarray, available: np.ndarray) -> np.ndarray:
        kept = np.rint(0.5 * (1.0 - action) * self._removable).astype(np.int64)
        return np.maximum(available - kept, 0)


_ACTIONS: dict[str, Callable[[np.ndarray, float, int], ActionKind]] = {
    "distribution": lambda sizes, logit_scale, _: DistributionAction(sizes, logit_scale),
    "ratio": lambda sizes, _scale, _round: RatioAction(sizes),
    "counts": lambda sizes, _, round_to: CountsAction(sizes, round_to),
    "layerwise": lambda sizes, _scale, _round: LayerwiseAction(sizes),
}


def action_names() -> tuple[str, ...]:
    """The values that `action=` accepts."""
    return tuple(_ACTIONS)


def make_action(name: str, sizes: np.ndarray, logit_scale: float, round_to: int = 1) -> ActionKind:
    """The action kind `name` for groups of the given (L,) dense `sizes`, in units of `round_to`."""
    check_choice("action", name, _ACTIONS)
    return _ACTIONS[name](sizes, logit_scale, round_to)
