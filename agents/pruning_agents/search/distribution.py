"""Pruning distributions as search points: to an action and back, and how to disturb them.

The environment turns an action into a distribution over groups; a search that keeps a distribution
needs the way back. Both directions meet here, so that every agent that searches over distributions
shares one of them. This module knows nothing of environments, models or learning.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning_env.process.allocation import distribution

#: Smallest share a group may have, so that no group can be lost for ever (spec: 1e-5).
FLOOR = 1e-5

NOISE_KINDS = ("adaptive", "multiplicative", "absolute")


def normalise(shares: ArrayLike) -> NDArray[np.float64]:
    """Clamp shares (L,) to at least `FLOOR` and make them sum to 1."""
    clamped = np.maximum(np.asarray(shares, dtype=np.float64), FLOOR)
    return clamped / clamped.sum()


def width_proportional(sizes: ArrayLike) -> NDArray[np.float64]:
    """The distribution (L,) that takes the same fraction of every group; the zero action."""
    return normalise(sizes)


def to_action(
    probabilities: ArrayLike, sizes: ArrayLike, logit_scale: float
) -> NDArray[np.float32]:
    """Return the action in [-1, 1]^L that the environment reads as `probabilities`.

    Inverse of p_l ∝ sizes_l · exp(logit_scale · a_l). The action is only determined up to a shift,
    which is chosen so that the logits are centred in the box. When they span more than the box
    (2 · logit_scale), the largest is put on its upper face and the smallest are clipped: raising a
    share that is nearly zero changes a pruning step less than lowering the largest ones.

    Args:
        probabilities: (L,) distribution over groups, positive.
        sizes: (L,) channels of each group.
        logit_scale: width of the environment's softmax, > 0.
    """
    logits = np.log(normalise(probabilities)) - np.log(np.asarray(sizes, dtype=np.float64))
    half_span = (logits.max() - logits.min()) / 2
    centre = logits.max() - min(half_span, logit_scale)
    return np.clip((logits - centre) / logit_scale, -1.0, 1.0).astype(np.float32)


def representable(
    probabilities: ArrayLike, sizes: ArrayLike, logit_scale: float
) -> NDArray[np.float64]:
    """The nearest distribution (L,) that an action can express: there and back again."""
    action = to_action(probabilities, sizes, logit_scale)
    return distribution(action.astype(np.float64), np.asarray(sizes), logit_scale)


def to_logits(probabilities: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """Log shares (..., L) per channel, centred: 0 everywhere when shares are width-proportional.

    The coordinates in which distributions are averaged: a share of 0.001 is as far from 0.002 as
    0.1 is from 0.2, and a group's size does not matter.
    """
    shares = np.maximum(np.asarray(probabilities, dtype=np.float64), FLOOR)
    logits = np.log(shares / np.asarray(sizes, dtype=np.float64))
    return logits - logits.mean(axis=-1, keepdims=True)


def from_logits(logits: ArrayLike, sizes: ArrayLike) -> NDArray[np.float64]:
    """The distribution (L,) with these log shares (L,) per channel, up to a shift."""
    return normalise(distribution(np.asarray(logits), np.asarray(sizes), 1.0))


def perturb(
    probabilities: ArrayLike,
    kind: str,
    scale: float | NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Disturb a distribution (L,) by Gaussian noise.

    With z ~ N(0, 1) per group and one u ~ U(0, 1) per call, so that near and far candidates are
    mixed:

    - "adaptive": p_l · exp(scale_l · z_l), for scales that follow the search;
    - "multiplicative": p_l · exp(scale · u · z_l), as strong for a narrow group as for a wide one;
    - "absolute": p_l + scale · u · z_l, the published form, which empties small shares and hardly
      moves large ones.

    Args:
        probabilities: (L,) shares.
        kind: one of `NOISE_KINDS`.
        scale: standard deviation, or the most it can be where u has a part; one or (L,).
        rng: what z and u are drawn from.

    Raises:
        ValueError: if `kind` is none of them.
    """
    shares = np.asarray(probabilities, dtype=np.float64)
    if kind == "adaptive":
        exponents = scale * rng.standard_normal(shares.shape)
        return normalise(shares * np.exp(exponents - np.max(exponents)))
    noise = scale * rng.uniform() * rng.standard_normal(shares.shape)
    if kind == "multiplicative":
        return normalise(shares * np.exp(noise))
    if kind == "absolute":
        return normalise(shares + noise)
    raise ValueError(f"noise={kind!r} is not known; allowed: {', '.join(NOISE_KINDS)}")
