"""What may be said of scores: point estimates, and bootstrap intervals that resample the runs.

Scores come as strata, one array per task with one entry per run, and runs are resampled within
their task (Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
2021). Everything is seeded. Nothing here knows what a score means, or whether more is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: From values (..., N) to (...).
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Per task, (runs,) values.
Strata = Sequence[ArrayLike] | NDArray[np.float64]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """An estimate, and the interval that it comes with."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference with this interval may be called one."""
        return self.low > 0.0 or self.high < 0.0


def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis."""
    return values.mean(axis=-1)


def median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Median over the last axis."""
    return np.median(values, axis=-1)


def interquartile_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without its lowest and highest quarter, each rounded down."""
    cut = values.shape[-1] // 4
    return np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)


def optimality_gap(values: NDArray[np.float64], target: float = 1.0) -> NDArray[np.float64]:
    """How far values stay below `target`, mean over the last axis; what is above it counts as it.

    For scores of which more is better.
    """
    return target - np.minimum(values, target).mean(axis=-1)


def performance_profile(strata: Strata, thresholds: ArrayLike) -> NDArray[np.float64]:
    """Share of all runs whose score is above each threshold.

    The run-score distribution of Agarwal et al., 2021.

    Args:
        strata: per task, (runs,) values.
        thresholds: (N,) scores.

    Returns:
        (N,), falling from 1 to 0 as thresholds rise.

    Raises:
        ValueError: as `bootstrap`, for the strata.
    """
    values = np.concatenate(_checked(strata, 0.95, 1))
    return (values[:, None] > np.asarray(thresholds, dtype=np.float64)).mean(axis=0)


def bootstrap(
    strata: Strata,
    statistic: Statistic = mean,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """A statistic of all values together, with its stratified percentile-bootstrap interval.

    Args:
        strata: per task, (runs,) values; at least one each, all finite.
        statistic: of values (..., N), over the last axis.
        confidence: in (0, 1), coverage that the interval aims at; with few runs it has less.
        resamples: number of bootstrap samples, at least 1.
        seed: of the resampling.

    Raises:
        ValueError: naming the argument that is not as above.
    """
    values = _checked(strata, confidence, resamples)
    rng = np.random.default_rng(seed)
    drawn = [
        stratum[rng.integers(stratum.size, size=(resamples, stratum.size))] for stratum in values
    ]
    samples = statistic(np.concatenate(drawn, axis=1))
    return _percentile(float(statistic(np.concatenate(values))), samples, confidence)


def paired_difference(
    first: Strata,
    second: Strata,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Mean of first - second over pairs of runs; the pairs are resampled, not the runs.

    Args:
        first: per task, (runs,) values.
        second: likewise, each run the partner (same seed) of the one in its place.
        confidence: as in `bootstrap`.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.

    Raises:
        ValueError: as `bootstrap`, or the two differ in shape.
    """
    pairs = _pairs(first, second)
    if any(a.size != b.size for a, b in pairs):
        raise ValueError("first and second must have as many runs per task, partner by partner")
    differences = [a - b for a, b in pairs]
    return bootstrap(differences, mean, confidence=confidence, resamples=resamples, seed=seed)


def probability_of_improvement(
    first: Strata,
    second: Strata,
    *,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Chance that a run of `first` is above a run of `second` on a random task; ties count half.

    The Mann-Whitney statistic of each task, divided by the number of its pairs, and the mean over
    the tasks. The runs of both sides are resampled, each within its task.

    Args:
        first: per task, (runs,) values.
        second: likewise, of the same tasks; the number of runs may differ.
        confidence: as in `bootstrap`.
        resamples: as in `bootstrap`.
        seed: as in `bootstrap`.

    Raises:
        ValueError: as `bootstrap`, or the number of tasks differs.
    """
    pairs = _pairs(first, second)
    _checked([each for pair in pairs for each in pair], confidence, resamples)
    rng = np.random.default_rng(seed)
    chances, samples = [], []
    for a, b in pairs:
        above = (a[:, None] > b) + 0.5 * (a[:, None] == b)
        chances.append(float(above.mean()))
        # How often each run was drawn, for either side: a chance is a product with their pairs.
        times_a = rng.multinomial(a.size, np.full(a.size, 1 / a.size), size=resamples) / a.size
        times_b = rng.multinomial(b.size, np.full(b.size, 1 / b.size), size=resamples) / b.size
        samples.append(np.einsum("ri,ij,rj->r", times_a, above, times_b, optimize=True))
    return _percentile(float(np.mean(chances)), np.mean(samples, axis=0), confidence)


def _pairs(first: Strata, second: Strata) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    if len(first) != len(second):
        raise ValueError(
            f"first has {len(first)} tasks and second {len(second)}; they must be the same tasks"
        )
    return [
        (np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64))
        for a, b in zip(first, second, strict=True)
    ]


def _checked(strata: Strata, confidence: float, resamples: int) -> list[NDArray[np.float64]]:
    values = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not values:
        raise ValueError("strata is empty; give at least one task")
    for place, stratum in enumerate(values):
        if stratum.ndim != 1 or not stratum.size or not np.isfinite(stratum).all():
            raise ValueError(
                f"strata[{place}]={stratum.tolist()} must be one or more finite values in a row"
            )
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence} must be above 0 and below 1")
    if resamples < 1:
        raise ValueError(f"resamples={resamples} must be at least 1")
    return values


def _percentile(estimate: float, samples: NDArray[np.float64], confidence: float) -> Interval:
    tail = 50.0 * (1.0 - confidence)
    low, high = np.percentile(samples, [tail, 100.0 - tail])
    return Interval(estimate, float(low), float(high))
