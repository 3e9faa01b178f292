"""What rows of constrained runs say: which targets a seed meets, and where the frontier is.

Arithmetic on rows; knows nothing of training, files or drawing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.constrained.rows import FIXED, LAGRANGIAN, ConstrainedRow

#: How far below the limit the final mean cost may be, and how far below the best the accuracy, as
#: shares of each; also how far from the frontier, as a share of the accuracy there.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Findings:
    """What the runs under one limit say.

    Attributes:
        budget: the limit, parameters / dense.
        rows: one per seed.
        costs: (S,) mean usage of the final policies / limit.
        accuracies: (S,) their mean accuracies / that of the best network within the budget.
        gaps: (S,) their mean accuracies - the frontier's at their usage; NaN where there is none.
        on_frontier: (S,) bool, whether the gap is at most 5 % of the frontier's accuracy.
    """

    budget: float
    rows: tuple[ConstrainedRow, ...]
    costs: NDArray[np.float64]
    accuracies: NDArray[np.float64]
    gaps: NDArray[np.float64]
    on_frontier: NDArray[np.bool_]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(S,) whether the mean cost is at most the limit and at most 5 % below it."""
        return (self.costs <= 1.0) & (self.costs >= 1.0 - TOLERANCE)

    @property
    def near_best(self) -> NDArray[np.bool_]:
        """(S,) whether the accuracy is at most 5 % below the best."""
        return self.accuracies >= 1.0 - TOLERANCE


def findings(rows: Iterable[ConstrainedRow]) -> tuple[Findings, ...]:
    """One per limit, in rising order."""
    rows = list(rows)
    usage, accuracy = frontier(rows)
    found = []
    for budget in sorted({row.number for row in rows if row.method == LAGRANGIAN}):
        own = [row for row in rows if row.method == LAGRANGIAN and row.number == budget]
        at = np.array([row.policy.usage for row in own])
        got = np.array([row.policy.accuracy for row in own])
        there = np.full(at.shape, math.nan)
        if usage.size:
            there = np.interp(at, usage, accuracy, left=math.nan, right=math.nan)
        best = [row.optimum for row in own if row.optimum is not None]
        found.append(
            Findings(
                budget,
                tuple(own),
                np.array([row.cost for row in own]),
                got / np.array(best),
                got - there,
                np.abs(got - there) <= TOLERANCE * there,
            )
        )
    return tuple(found)


def frontier(rows: Iterable[ConstrainedRow]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(K,) usages in rising order, and the accuracies, of the upper hull of fixed prices.

    Each price is the mean over its seeds. A mixture of two policies lies between them, so what can
    be had by fixed prices is bounded by the hull. Empty where there are no such rows.
    """
    fixed = [row for row in rows if row.method == FIXED]
    points = []
    for price in {row.number for row in fixed}:
        own = [row.policy for row in fixed if row.number == price]
        points.append((np.mean([p.usage for p in own]), np.mean([p.accuracy for p in own])))
    hull = upper_hull([(float(x), float(y)) for x, y in points])
    return np.array([x for x, _ in hull]), np.array([y for _, y in hull])


def upper_hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the upper convex hull, from left to right (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for point in sorted(points):
        while len(hull) >= 2 and _turn(hull[-2], hull[-1], point) >= 0.0:
            hull.pop()
        if hull and hull[-1][0] == point[0]:
            hull.pop()  # sorted, so this one is as high or higher
        hull.append(point)
    return hull


def _turn(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> float:
    """Above 0 where the way a, b, c turns left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def wilson(hits: int, of: int) -> tuple[float, float]:
    """95 % interval of a chance that came true `hits` times (Wilson, 1927)."""
    z = 1.959964
    share, spread = hits / of, z * math.sqrt(hits / of * (1 - hits / of) / of + z**2 / (4 * of**2))
    scale = 1 / (1 + z**2 / of)
    middle = scale * (share + z**2 / (2 * of))
    return max(0.0, middle - scale * spread), min(1.0, middle + scale * spread)
