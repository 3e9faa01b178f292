"""Distributions as search points: the way to an action and back, and the noise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pruning_agents.search.distribution import (
    FLOOR,
    normalise,
    perturb,
    representable,
    to_action,
    width_proportional,
)
from pruning_env.process.allocation import distribution

SIZES = np.array([16, 16, 32, 64])
SCALE = 3.0

actions = arrays(np.float32, len(SIZES), elements=st.floats(-1, 1, width=32))
shares = arrays(np.float64, len(SIZES), elements=st.floats(1e-3, 1.0))


@given(actions)
def test_the_distribution_of_any_action_survives_the_way_back_and_there_again(action):
    wanted = distribution(action.astype(np.float64), SIZES, SCALE)
    assert np.allclose(representable(wanted, SIZES, SCALE), wanted, rtol=1e-5)


@given(shares)
def test_every_distribution_becomes_an_action_inside_the_box(weights):
    action = to_action(normalise(weights), SIZES, SCALE)
    assert action.dtype == np.float32
    assert (np.abs(action) <= 1).all()


@given(shares)
def test_what_an_action_can_express_is_not_changed_by_expressing_it_again(weights):
    once = representable(normalise(weights), SIZES, SCALE)
    assert np.allclose(representable(once, SIZES, SCALE), once, rtol=1e-5)


def test_the_width_proportional_distribution_is_the_zero_action():
    assert np.allclose(to_action(width_proportional(SIZES), SIZES, SCALE), 0, atol=1e-6)


def test_logits_are_centred_in_the_box_when_they_fit():
    action = to_action(SIZES * np.exp([0.0, 1.0, 2.0, 4.0]), SIZES, SCALE)
    assert np.allclose(action, (np.array([0.0, 1.0, 2.0, 4.0]) - 2.0) / SCALE, atol=1e-6)


def test_logits_too_far_apart_are_clipped_at_the_lower_end_only():
    probabilities = normalise(SIZES * np.exp([-9.0, -1.0, 0.0, 0.0]))
    action = to_action(probabilities, SIZES, SCALE)
    assert action[0] == -1
    assert np.allclose(action[1:], [1 - 1 / SCALE, 1, 1], atol=1e-6)
    expressed = distribution(action.astype(np.float64), SIZES, SCALE)
    assert np.allclose(expressed[1] / expressed[2], probabilities[1] / probabilities[2], rtol=1e-5)


@pytest.mark.parametrize("kind", ["multiplicative", "absolute"])
def test_noise_gives_a_distribution_that_depends_on_the_generator_alone(kind):
    p = width_proportional(SIZES)
    first, again, other = (perturb(p, kind, 0.5, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.sum() == pytest.approx(1)
    assert (first > 0).all()


def test_multiplicative_noise_is_as_strong_for_a_narrow_group_as_for_a_wide_one():
    p = normalise([1.0, 1000.0])
    rng = np.random.default_rng(0)
    logs = np.log([perturb(p, "multiplicative", 0.1, rng) for _ in range(4000)])
    # Normalising couples two shares; only their ratio is free, and it moves by both noises.
    assert np.std(logs[:, 0] - logs[:, 1]) == pytest.approx(0.1 * np.sqrt(2 / 3), rel=0.1)


def test_absolute_noise_floors_a_narrow_group_and_hardly_moves_a_wide_one():
    p = normalise([1.0, 1000.0])
    rng = np.random.default_rng(0)
    noisy = np.array([perturb(p, "absolute", 0.04, rng) for _ in range(2000)])
    assert np.mean(noisy[:, 0] < 2 * FLOOR) == pytest.approx(0.5, abs=0.05)
    assert np.std(noisy[:, 1]) < 0.02


def test_unknown_noise_is_refused_by_name():
    with pytest.raises(ValueError, match=r"noise='loud'.*multiplicative, absolute"):
        perturb(width_proportional(SIZES), "loud", 1.0, np.random.default_rng(0))
