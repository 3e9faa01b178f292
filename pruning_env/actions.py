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
from pruning_env.units import Units

# Quotas closer than this to each other or to a whole number count as equal: float noise must not
# decide who gets a channel, or two machines would prune different networks.
_TIE_DECIMALS = 9
_SMALLEST = 5e-324  # the smallest positive float64


def distribution(action: np.ndarray, sizes: np.ndarray, logit_scale: float) -> np.ndarray:
    """Turn logits into the share of the channels that each group gives.

    `p_l` is proportional to `sizes_l * exp(logit_scale * action_l)`: the zero action prunes every
    group by the same ratio, and one unit of action multiplies a group's ratio by
    `exp(logit_scale)`.

    Args:
        action: (..., L) finite logits.
        sizes: (L,) number of channels of each group in the dense network.
        logit_scale: finite factor on the logits. With actions in [-1, 1] the largest ratio
            between two groups of equal size is `exp(2 * logit_scale)`.

    Returns:
        (..., L) float64 probabilities; each row sums to 1.
    """
    logits = logit_scale * np.asarray(action, dtype=np.float64)
    largest = np.ascontiguousarray(logits.T).max(axis=0).T  # 20 times quicker than along short rows
    weights = np.asarray(sizes, dtype=np.float64) * np.exp(logits - largest[..., None])
    return weights / weights.sum(axis=-1, keepdims=True)


def allocate(
    total: int, p: np.ndarray, available: np.ndarray, given: np.ndarray | None = None
) -> np.ndarray:
    """Split `total` channels over the groups in proportion to `p`, never above `available`.

    What a full group cannot give is offered to the others, in proportion again; groups with
    `p = 0` give only when all others are empty, in proportion to what they have. Each real-valued
    quota is rounded down or up. Rounding up goes by largest remainder, ties to the larger `p` and
    then to the lower index.

    Over many small steps, largest remainders would always favour the same groups: with one channel
    per step, the largest group would give all of them. So where `given` tells what the groups gave
    before, rounding up goes instead to those that are furthest behind what `p` would have made them
    give from the start. For the first step that is the same.

    Without `given`, order is kept (`p_i > p_j > 0` and `available_i >= available_j` gives
    `n_i >= n_j`), and a larger `p_i` never lowers `n_i`. A larger `total` may lower one entry: that
    is the Alabama paradox of largest remainders.

    Many splits may be asked for at once, one per row; each is what it would be alone, bit for bit.

    Args:
        total: number of channels to give, at least 0; the same for all rows.
        p: (..., L) finite weights, at least 0; need not sum to 1.
        available: (..., L) how many channels each group can give, at least 0.
        given: (..., L) how many each gave before, at least 0; None: nothing.

    Returns:
        (..., L) int64 counts; the sum of each row is exactly `min(total, available.sum())`.
    """
    p, available = np.asarray(p, dtype=np.float64), np.asarray(available)
    if p.shape != available.shape:
        p, available = np.broadcast_arrays(p, available)
    shape = p.shape
    # From here on one split per column: along short rows, numpy's reductions are slow.
    p, available = _columns(p), _columns(available)
    splits = p.shape[1]
    totals = np.minimum(int(total), available.sum(axis=0))
    if given is None:
        quotas = due = _quotas(totals, p, available)
    else:
        gave = _columns(given)
        # One call for both: for a few groups the calls cost more than the numbers.
        both = _quotas(
            np.concatenate([totals, totals + gave.sum(axis=0)]),
            np.concatenate([p, p], axis=1),
            np.concatenate([available, available + gave], axis=1),
        )
        quotas, due = both[:, :splits], both[:, splits:] - gave
    floors = np.floor(quotas.round(_TIE_DECIMALS))
    behind = (due - floors).round(_TIE_DECIMALS)
    behind[(quotas - floors).round(_TIE_DECIMALS) <= 0] = -np.inf  # whole quotas stay as they are
    counts = floors + (_place(behind, p) < totals - floors.sum(axis=0))
    return counts.T.astype(np.int64, order="C").reshape(shape)


def _columns(rows: np.ndarray) -> np.ndarray:
    """(..., L) -> (L, N) float64, in C order; whole numbers stay exact."""
    rows = np.asarray(rows)
    return rows.reshape(-1, rows.shape[-1]).T.astype(np.float64, order="C")


def _place(first: np.ndarray, then: np.ndarray) -> np.ndarray:
    """(L, N) places in a column, 0 for the largest `first`, ties by `then`, then by lower index.

    By comparing all pairs: for many short columns that is several times faster than sorting.
    """
    groups = len(first)
    other, other_then, number = first[:, None], then[:, None], np.arange(groups)
    ahead = other_then == then
    ahead &= (number[:, None] < number)[:, :, None]
    ahead |= other_then > then
    ahead &= other == first
    ahead |= other > first
    # Bytes add up faster than they are made into integers.
    return ahead.view(np.uint8).sum(axis=0, dtype=np.min_scalar_type(groups))


def _quotas(total: np.ndarray, p: np.ndarray, available: np.ndarray) -> np.ndarray:
    """(L, N) reals in [0, available] whose columns sum to `total` (N,), at most what there is."""
    quotas = _fill(total, p, available)
    short = np.rint(total - quotas.sum(axis=0))
    if short.any():  # a column in which every group with p > 0 is empty
        quotas += _fill(short, np.where(p > 0, 0.0, available), available)
    return quotas


def _fill(total: np.ndarray, p: np.ndarray, available: np.ndarray) -> np.ndarray:
    """(L, N) real quotas `min(available, c * p)` with `c` such that a column sums to its `total`.

    It sums to less only where the groups with `p > 0` have less than `total` in all.
    """
    unfilled = (p > 0) & (available > 0)
    weights = np.where(unfilled, p, 0.0)
    # The bounds matter only where nothing is unfilled, and turn 0 / 0 into 0.
    weights /= np.maximum(weights.max(axis=0), _SMALLEST)
    # Below 8 numbers both axes add up in the same order, and the first one is quicker.
    sums = weights.sum(axis=0) if len(p) < 8 else np.ascontiguousarray(weights.T).sum(axis=1)
    quotas = total * (weights / np.maximum(sums, 1.0))
    full = unfilled & (quotas >= available)
    if full.any():
        # Full groups give all they have, and what is missing is offered to the others.
        where = full.any(axis=0).nonzero()[0]
        full, some_p, some = (each.take(where, axis=1) for each in (full, p, available))
        given = np.where(full, some, 0.0)
        rest = _fill(total[where] - given.sum(axis=0), np.where(full, 0.0, some_p), some)
        quotas[:, where] = given + rest
    return quotas


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
        return math.floor(round(float(self._wanted(action, available).sum()), _TIE_DECIMALS) + 0.5)

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
        self._removable = Units(sizes, round_to).left(sizes)

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
