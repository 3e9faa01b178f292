"""Judged candidates of `RLPruner`: the replay buffer, and what its best members say together.

Pure functions over small records. They know distributions as numbers, and neither environments nor
how a candidate was drawn or judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Candidate:
    """One judged candidate.

    Attributes:
        q: the value it earned.
        probabilities: (L,) its distribution.
        action: (L,) its action.
        accuracy: on search-val, of the network that it was judged by; NaN where nobody asks.
    """

    q: float
    probabilities: NDArray[np.float64]
    action: NDArray[np.float32]
    accuracy: float = float("nan")


@dataclass(frozen=True)
class Elite:
    """The distributions that a policy is to follow.

    Attributes:
        probabilities: (n, L), best first.
        weights: (n,) positive, falling, summing to 1.
    """

    probabilities: NDArray[np.float64]
    weights: NDArray[np.float64]


def remember(buffer: list[Candidate], candidate: Candidate, size: int) -> list[Candidate]:
    """Return the `size` best of the buffer and `candidate`, best first; the newest wins a tie."""
    return sorted([candidate, *buffer], key=lambda kept: -kept.q)[:size]


def best_alone(buffer: Sequence[Candidate]) -> Elite:
    """The best member of the buffer and nobody else: the published update."""
    return Elite(buffer[0].probabilities[None], np.ones(1))


def rank_weighted(buffer: Sequence[Candidate]) -> Elite:
    """All members of the buffer, the i-th best of n with weight ∝ ln(n + 1/2) - ln(i).

    The recombination weights of CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial",
    equation 49), which depend on ranks only: the scale of the reward does not matter.
    """
    weights = np.log(len(buffer) + 0.5) - np.log(np.arange(1, len(buffer) + 1))
    probabilities = np.array([candidate.probabilities for candidate in buffer])
    return Elite(probabilities, weights / weights.sum())
