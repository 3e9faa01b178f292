"""How many channels each group gives: shares from logits, and whole channels from shares.

Pure numbers, for one row or for many; knows nothing of spaces, networks or episodes.
"""

from __future__ import annotations

import numpy as np

# Quotas closer than this to each other or to a whole number count as equal: float noise must not
# decide who gets a channel, or two machines would prune different networks.
TIE_DECIMALS = 9
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
    floors = np.floor(quotas.round(TIE_DECIMALS))
    behind = (due - floors).round(TIE_DECIMALS)
    behind[(quotas - floors).round(TIE_DECIMALS) <= 0] = -np.inf  # whole quotas stay as they are
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
