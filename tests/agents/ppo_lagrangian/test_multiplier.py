"""The multiplier: every update is a number that can be computed by hand."""

from __future__ import annotations

import math

import pytest

from pruning_agents.ppo_lagrangian.multiplier import Multiplier


def plain(**arguments):
    return Multiplier("lagrangian", **arguments)


def test_plain_ascent_moves_by_the_step_times_the_relative_violation():
    multiplier = plain(multiplier_init=1.0, multiplier_lr=0.25)
    cost, limit = 3.0, 2.0
    assert multiplier.update(cost / limit - 1.0) == 1.0 + 0.25 * (cost - limit) / limit


def test_plain_ascent_stops_at_zero():
    multiplier = plain(multiplier_init=0.1, multiplier_lr=0.25)
    assert multiplier.update(-1.0) == 0.0
    assert multiplier.update(0.4) == pytest.approx(0.1)


def test_no_step_is_no_movement():
    multiplier = plain(multiplier_init=1.5, multiplier_lr=0.0)
    for violation in (5.0, -1.0):
        assert multiplier.update(violation) == 1.5


def test_pi_adds_the_smoothed_violation_to_the_integral():
    multiplier = Multiplier(
        "pi", multiplier_init=1.0, multiplier_lr=0.1, multiplier_gain=2.0, multiplier_smoothing=0.75
    )
    assert multiplier.update(0.4) == pytest.approx(1.04 + 2.0 * 0.4)
    smoothed = 0.75 * 0.4 + 0.25 * -0.2
    assert multiplier.update(-0.2) == pytest.approx(1.02 + 2.0 * smoothed)
    assert multiplier.integral == pytest.approx(1.02)


def test_pi_falls_as_soon_as_the_violation_does_and_plain_ascent_does_not():
    pi, integral = Multiplier("pi"), plain()
    for each in (pi, integral):
        for _ in range(10):
            each.update(1.0)
    at_peak = pi.value, integral.value
    for each in (pi, integral):
        each.update(0.5)
    assert pi.value < at_peak[0]
    assert integral.value > at_peak[1]


@pytest.mark.parametrize("controller", ["pi", "lagrangian"])
def test_the_integral_does_not_wind_up_at_either_end(controller):
    multiplier = Multiplier(controller, multiplier_lr=0.5, multiplier_gain=0.0, max_multiplier=3.0)
    for _ in range(100):
        multiplier.update(1.0)
    assert multiplier.value == multiplier.integral == 3.0
    assert multiplier.update(-1.0) == 2.5
    for _ in range(100):
        multiplier.update(-1.0)
    assert multiplier.update(1.0) == 0.5


def test_without_a_limit_it_falls_to_zero():
    multiplier = Multiplier(multiplier_init=2.0, multiplier_lr=0.1)
    for _ in range(20):
        multiplier.update(5.0 / math.inf - 1.0)
    assert multiplier.value == 0.0


def test_only_violations_in_a_row_at_the_cap_count_as_saturated():
    multiplier = plain(multiplier_lr=1.0, max_multiplier=2.0)
    counts = []
    for violation in (1.0, 1.0, 1.0, -0.1, 1.0, 0.0, 1.0):
        multiplier.update(violation)
        counts.append(multiplier.saturated)
    assert counts == [0, 1, 2, 0, 1, 0, 1]
    assert multiplier.updates == 7


@pytest.mark.parametrize("violation", [math.nan, math.inf])
def test_a_violation_that_is_no_number_is_refused(violation):
    multiplier = plain(multiplier_init=1.0)
    with pytest.raises(ValueError, match="violation="):
        multiplier.update(violation)
    assert multiplier.value == 1.0 and multiplier.updates == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("controller", "pid"),
        ("multiplier_init", -1.0),
        ("multiplier_init", 101.0),
        ("multiplier_lr", -0.1),
        ("multiplier_lr", math.nan),
        ("multiplier_gain", -0.1),
        ("multiplier_smoothing", 1.0),
        ("max_multiplier", 0.0),
        ("max_multiplier", math.inf),
    ],
)
def test_a_bad_argument_is_named(name, value):
    with pytest.raises(ValueError, match=f"^{name}="):
        Multiplier(**{name: value})
