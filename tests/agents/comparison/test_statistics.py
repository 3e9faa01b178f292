"""Statistics of scores: by hand, against SciPy, and against rliable where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from pruning_agents.comparison.statistics import (
    bootstrap,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    paired_difference,
    performance_profile,
    probability_of_improvement,
)

SCORES = np.random.default_rng(1).normal(size=(2, 20))
OTHERS = np.random.default_rng(2).normal(0.3, 2.0, size=(2, 20))


def test_estimates_by_hand():
    values = np.array([9.0, 1.0, 2.0, 100.0, 3.0, 4.0, 5.0, -50.0])
    # Sorted: -50 1 | 2 3 4 5 | 9 100.
    assert interquartile_mean(values) == 3.5
    assert median(values) == 3.5
    assert mean(values) == 9.25
    assert interquartile_mean(np.array([0.0, 1.0, 5.0])) == 2.0  # a quarter of 3 is none


@pytest.mark.parametrize("count", [1, 3, 4, 7, 20, 21])
def test_the_interquartile_mean_is_scipys_trimmed_mean(count):
    values = np.random.default_rng(count).normal(size=(5, count))
    assert np.allclose(interquartile_mean(values), scipy.stats.trim_mean(values, 0.25, axis=1))


@pytest.mark.parametrize("statistic", [mean, median, interquartile_mean])
def test_the_interval_of_one_stratum_is_scipys_percentile_bootstrap(statistic):
    ours = bootstrap([SCORES[0]], statistic, resamples=40_000)
    theirs = scipy.stats.bootstrap(
        (SCORES[0],),
        lambda values, axis: statistic(np.moveaxis(values, axis, -1)),
        n_resamples=40_000,
        method="percentile",
        rng=np.random.default_rng(5),
    ).confidence_interval
    width = theirs.high - theirs.low
    assert abs(ours.low - theirs.low) < 0.03 * width
    assert abs(ours.high - theirs.high) < 0.03 * width
    assert ours.estimate == statistic(SCORES[0])


def test_runs_are_resampled_within_their_task():
    # Between tasks 0 and 100 there is no doubt about the mean; a plain bootstrap would doubt it.
    apart = bootstrap([[0.0] * 10, [100.0] * 10])
    assert (apart.low, apart.estimate, apart.high) == (50.0, 50.0, 50.0)
    # And tasks of unequal numbers of runs count by their runs.
    assert bootstrap([[0.0], [3.0, 3.0]]).estimate == 2.0


def test_an_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(300):
        interval = bootstrap([rng.normal(size=20)], resamples=500)
        hits += interval.low <= 0.0 <= interval.high
    assert 0.89 <= hits / 300 <= 0.98


def test_equal_seeds_give_equal_intervals_and_leave_the_global_generator_alone():
    before = np.random.get_state(legacy=False)["state"]["key"].copy()
    assert bootstrap([SCORES[0]], seed=3) == bootstrap([SCORES[0]], seed=3)
    assert bootstrap([SCORES[0]], seed=3) != bootstrap([SCORES[0]], seed=4)
    assert np.array_equal(np.random.get_state(legacy=False)["state"]["key"], before)


def test_differences_are_taken_between_partners():
    # Seeds differ by 10, agents by 1: only pairs show it.
    first = [np.arange(8) * 10.0]
    ahead = paired_difference(first, [first[0] - 1.0])
    assert (ahead.low, ahead.estimate, ahead.high) == (1.0, 1.0, 1.0)
    assert ahead.excludes_zero
    turned = paired_difference(first, [first[0] + 1.0])
    assert turned.estimate == -1.0 and turned.excludes_zero
    assert not paired_difference(first, first).excludes_zero
    assert not paired_difference([[1.0, -1.0, 1.0, -1.0]], [[0.0] * 4]).excludes_zero


def test_the_interval_of_a_difference_is_that_of_the_differences():
    assert paired_difference(SCORES, OTHERS) == bootstrap(SCORES - OTHERS)


def test_probability_of_improvement_by_hand():
    # Pairs: 1>0, 1<2, 3>0, 3>2: 3 of 4. A tie counts half.
    assert probability_of_improvement([[1.0, 3.0]], [[0.0, 2.0]]).estimate == 0.75
    assert probability_of_improvement([[1.0]], [[1.0]]).estimate == 0.5
    # Tasks count alike, whatever their numbers of runs.
    both = probability_of_improvement([[1.0], [0.0] * 9], [[0.0], [1.0] * 9])
    assert both.estimate == 0.5


def test_probability_of_improvement_is_scipys_mann_whitney():
    for a, b in zip(SCORES, np.round(OTHERS), strict=True):
        a = np.round(a)  # ties
        expected = scipy.stats.mannwhitneyu(a, b).statistic / (a.size * b.size)
        interval = probability_of_improvement([a], [b])
        assert interval.estimate == pytest.approx(expected)
        assert 0.0 <= interval.low < interval.estimate < interval.high <= 1.0


def test_the_interval_of_the_probability_is_that_of_resampled_runs():
    a, b = SCORES[0], OTHERS[0]
    rng = np.random.default_rng(0)
    chances = [
        (rng.choice(a, a.size)[:, None] > rng.choice(b, b.size)).mean() for _ in range(10_000)
    ]
    low, high = np.percentile(chances, [2.5, 97.5])
    interval = probability_of_improvement([a], [b])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


@pytest.mark.parametrize("scores", [SCORES, OTHERS, np.round(OTHERS)], ids=["a", "b", "ties"])
def test_estimates_are_rliables(scores):
    metrics = pytest.importorskip("rliable.metrics")
    library = pytest.importorskip("rliable.library")
    matrix, flat = scores.T, scores.ravel()  # runs x tasks
    assert float(interquartile_mean(flat)) == pytest.approx(metrics.aggregate_iqm(matrix))
    assert float(mean(flat)) == pytest.approx(metrics.aggregate_mean(matrix))
    # Over tasks it takes the median of their means; here each task has one run.
    assert float(median(flat)) == pytest.approx(metrics.aggregate_median(flat[None]))
    for target in (1.0, 0.25):
        ours = float(optimality_gap(flat, target))
        assert ours == pytest.approx(metrics.aggregate_optimality_gap(matrix, target))
    for other in (OTHERS, np.round(SCORES)):
        chance = probability_of_improvement(scores, other).estimate
        assert chance == pytest.approx(metrics.probability_of_improvement(matrix, other.T))
    thresholds = np.linspace(-3, 3, 13)
    theirs = [library.run_score_deviation(matrix, threshold) for threshold in thresholds]
    assert performance_profile(scores, thresholds) == pytest.approx(theirs)


def test_gap_and_profile_by_hand():
    assert float(optimality_gap(np.array([0.5, 0.75, 3.0]))) == pytest.approx(0.25)
    assert float(optimality_gap(np.array([0.0, 4.0]), 2.0)) == pytest.approx(1.0)
    # Above means above: a score that is the threshold does not count.
    profile = performance_profile([[0.0, 1.0], [1.0, 2.0]], [-1.0, 0.0, 1.0, 2.0])
    assert profile.tolist() == [1.0, 0.75, 0.25, 0.0]
    with pytest.raises(ValueError, match=r"strata\[0\]"):
        performance_profile([[]], [0.0])


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        (([],), {}, "strata is empty"),
        (([[]],), {}, r"strata\[0\]"),
        (([[1.0], [np.nan]],), {}, r"strata\[1\]"),
        (([[1.0]],), {"confidence": 1.0}, "confidence=1.0"),
        (([[1.0]],), {"resamples": 0}, "resamples=0"),
    ],
)
def test_bad_input_is_refused_by_name(arguments, options, named):
    with pytest.raises(ValueError, match=named):
        bootstrap(*arguments, **options)


def test_runs_without_partners_are_refused():
    with pytest.raises(ValueError, match="partner by partner"):
        paired_difference([[1.0, 2.0]], [[1.0]])
    with pytest.raises(ValueError, match="same tasks"):
        probability_of_improvement([[1.0]], [[1.0], [2.0]])
