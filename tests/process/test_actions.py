"""An action is a distribution; the distribution becomes whole channels, exactly."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pruning_env.process.actions import DistributionAction, make_action
from pruning_env.process.allocation import allocate, distribution

SIZES = np.array([16, 16, 32, 64])


@st.composite
def offers(draw):
    """(p, available): whole-number weights, zeros included, so that ties are frequent."""
    groups = draw(st.integers(1, 12))
    p = draw(st.lists(st.integers(0, 20), min_size=groups, max_size=groups))
    available = draw(st.lists(st.integers(0, 40), min_size=groups, max_size=groups))
    return np.array(p, dtype=float), np.array(available)


totals = st.integers(0, 500)


@given(totals, offers())
def test_allocation_sums_to_the_total_or_to_all_there_is(total, offer):
    p, available = offer
    assert allocate(total, p, available).sum() == min(total, available.sum())


@given(totals, offers())
def test_allocation_is_never_negative_and_never_above_what_is_available(total, offer):
    p, available = offer
    counts = allocate(total, p, available)
    assert counts.dtype == np.int64
    assert (counts >= 0).all() and (counts <= available).all()


@given(totals, st.lists(st.floats(0, 1e300), min_size=1, max_size=8))
def test_allocation_stays_exact_for_weights_of_any_magnitude(total, p):
    available = np.full(len(p), 30)
    counts = allocate(total, np.array(p), available)
    assert counts.sum() == min(total, available.sum()) and (counts <= 30).all()


@given(totals, offers())
def test_allocation_is_the_same_each_time_and_leaves_its_inputs_alone(total, offer):
    p, available = offer
    before = p.copy(), available.copy()
    first = allocate(total, p, available)
    assert np.array_equal(first, allocate(total, p, available))
    assert np.array_equal(before[0], p) and np.array_equal(before[1], available)


@given(totals, offers())
def test_a_larger_share_of_a_larger_stock_never_gives_less(total, offer):
    p, available = offer
    counts = allocate(total, p, available)
    for i in range(p.size):
        for j in range(p.size):
            if p[i] > p[j] and p[j] > 0 and available[i] >= available[j]:
                assert counts[i] >= counts[j]


@given(totals, offers(), st.data())
def test_raising_one_share_never_lowers_that_groups_count(total, offer, data):
    p, available = offer
    index = data.draw(st.integers(0, p.size - 1))
    more = p.copy()
    more[index] += data.draw(st.integers(1, 20))
    assert allocate(total, more, available)[index] >= allocate(total, p, available)[index]


@given(st.integers(0, 200), offers())
def test_unlimited_groups_get_their_quota_rounded_up_or_down(total, offer):
    p, _ = offer
    if p.sum() == 0:
        p = p + 1
    counts = allocate(total, p, np.full(p.size, 10_000))
    assert (np.abs(counts - total * p / p.sum()) < 1).all()


@given(totals, offers())
def test_scaling_all_shares_changes_nothing(total, offer):
    p, available = offer
    expected = allocate(total, p, available)
    assert np.array_equal(allocate(total, p / 3, available), expected)
    assert np.array_equal(allocate(total, p * 1e-200, available), expected)


@given(totals, offers(), st.data())
def test_what_was_given_before_decides_only_who_is_rounded_up(total, offer, data):
    p, available = offer
    given = np.array(data.draw(st.lists(st.integers(0, 40), min_size=p.size, max_size=p.size)))
    counts = allocate(total, p, available, given)
    assert counts.sum() == min(total, available.sum())
    assert (counts >= 0).all() and (counts <= available).all()
    assert (np.abs(counts - allocate(total, p, available)) <= 1).all()


@given(st.integers(1, 40), offers())
def test_many_small_steps_give_what_one_large_step_would(per_step, offer):
    p, available = offer
    given = np.zeros_like(available)
    while (available - given).any():
        given += allocate(per_step, p, available - given, given)
        at_once = allocate(int(given.sum()), p, available)
        assert (np.abs(given - at_once) <= 2).all()


def test_one_channel_per_step_takes_turns_by_share():
    given = np.zeros(3, int)
    for _ in range(60):
        given += allocate(1, np.array([1, 2, 3]), np.full(3, 99), given)
    assert given.tolist() == [10, 20, 30]


def test_a_whole_quota_is_never_rounded_however_far_behind_the_group_is():
    # Quotas 1, 0.5 and 0.5; the first has given nothing so far, the others five each.
    p, given = np.array([2, 1, 1]), np.array([0, 5, 5])
    assert allocate(2, p, np.full(3, 9), given).tolist() == [1, 1, 0]


def test_overflow_is_offered_to_the_others_in_proportion():
    # 12 by (6, 3, 3); the first can give only 2, its other 4 go to the rest in equal parts.
    assert allocate(12, np.array([0.5, 0.25, 0.25]), np.array([2, 9, 9])).tolist() == [2, 5, 5]


def test_groups_without_a_share_give_only_when_the_others_are_empty():
    p, available = np.array([1.0, 0.0, 0.0]), np.array([4, 8, 4])
    assert allocate(4, p, available).tolist() == [4, 0, 0]
    assert allocate(7, p, available).tolist() == [4, 2, 1]


def test_ties_go_to_the_larger_share_and_then_to_the_lower_index():
    assert allocate(1, np.array([1.0, 1.0]), np.array([5, 5])).tolist() == [1, 0]
    # Quotas 0.5, 0.5 and 1.5: all remainders are equal, the third has the largest share.
    assert allocate(3, np.array([1.0, 1.0, 3.0, 1.0]), np.array([5] * 4)).tolist() == [1, 0, 2, 0]


def test_the_zero_action_prunes_every_group_by_the_same_ratio():
    p = distribution(np.zeros(4), SIZES, 3.0)
    assert np.allclose(p, SIZES / SIZES.sum(), rtol=1e-15)
    assert allocate(16, p, SIZES - 1).tolist() == [2, 2, 4, 8]


def test_one_unit_of_action_multiplies_a_groups_ratio_by_e_to_the_scale():
    p = distribution(np.array([1.0, 0.0, 0.0, 0.0]), SIZES, 2.0)
    assert p[0] / p[1] == pytest.approx(np.exp(2.0))


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.floats(0.01, 1e4))
def test_a_distribution_is_finite_and_sums_to_one_at_any_scale(action, scale):
    p = distribution(np.array(action), SIZES, scale)
    assert np.isfinite(p).all() and (p >= 0).all()
    assert p.sum() == pytest.approx(1.0)


@pytest.fixture
def kind():
    return DistributionAction(SIZES, 3.0)


def test_the_space_is_the_symmetric_float32_box(kind):
    space = kind.space()
    assert (space.low == -1).all() and (space.high == 1).all()
    assert space.shape == (4,) and space.dtype == np.float32


@pytest.mark.parametrize(
    "raw",
    [
        np.array([0.5, -1, 1, 0], np.float32),
        np.array([0.5, -1, 1, 0], np.float16),
        [0.5, -1, 1, 0],
        torch.tensor([0.5, -1, 1, 0]),
    ],
)
def test_any_real_vector_of_the_right_length_is_read(kind, raw):
    parsed = kind.parse(raw)
    assert parsed.dtype == np.float64 and parsed.tolist() == [0.5, -1, 1, 0]


def test_numbers_beyond_the_box_are_clipped_infinities_included(kind):
    assert kind.parse([np.inf, -np.inf, 7, -1.5]).tolist() == [1, -1, 1, -1]


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (np.zeros(3), "shape"),
        (np.zeros((1, 4)), "shape"),
        (0.5, "shape"),
        ([0, np.nan, 0, np.nan], r"NaN at index \[1, 3\]"),
        (["a", "b", "c", "d"], "dtype"),
        (np.zeros(4, complex), "dtype"),
        (np.zeros(4, bool), "dtype"),
        (None, "dtype"),
        ([[1, 2], [3]], "cannot be read"),
        (torch.zeros(4, requires_grad=True), "cannot be read"),
    ],
)
def test_anything_else_is_refused_by_name(kind, raw, complaint):
    with pytest.raises(ValueError, match=rf"action.*{complaint}.*4 real numbers"):
        kind.parse(raw)


@pytest.mark.parametrize("scale", [0.0, -1.0, np.nan, np.inf, "3", True])
def test_a_logit_scale_that_is_not_positive_and_finite_is_refused(scale):
    with pytest.raises(ValueError, match="logit_scale="):
        DistributionAction(SIZES, scale)


def test_an_unknown_action_kind_is_refused_by_name():
    with pytest.raises(ValueError, match=r"action='layers'.*distribution"):
        make_action("layers", SIZES, 3.0)


# Fractions


@pytest.fixture
def ratio():
    return make_action("ratio", SIZES, 3.0)


def test_a_fraction_is_of_what_is_left_from_none_of_it_to_all_of_it(ratio):
    left = np.array([10, 4, 7, 0])
    for value, expected in ((-1, [0, 0, 0, 0]), (1, [10, 4, 7, 0]), (-0.5, [2, 1, 2, 0])):
        action = np.full(4, float(value))
        asked = ratio.asks(action, 99, left)
        assert asked == sum(expected)
        assert ratio.split(action, asked, left, np.zeros(4, int)).tolist() == expected


def test_the_zero_action_takes_half_of_every_group(ratio):
    left = np.array([10, 4, 8, 2])
    assert ratio.asks(np.zeros(4), 1, left) == 12
    assert ratio.split(np.zeros(4), 12, left, left * 0).tolist() == [5, 2, 4, 1]


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
    st.lists(st.integers(0, 50), min_size=4, max_size=4),
)
def test_fractions_ask_for_no_more_than_there_is_and_each_group_is_within_a_channel(action, left):
    ratio, parsed, available = make_action("ratio", SIZES, 1.0), np.array(action), np.array(left)
    asked = ratio.asks(parsed, 1, available)
    wanted = (1 + parsed) / 2 * available
    assert 0 <= asked <= available.sum() and abs(asked - wanted.sum()) <= 0.5 + 1e-6
    split = ratio.split(parsed, asked, available, np.zeros(4, int))
    assert split.sum() == asked and (split <= available).all()
    assert (np.abs(split - wanted) < 1 + 0.5 + 1e-6).all()


def test_scaled_fractions_move_together_and_stop_at_all(ratio):
    left, action = np.array([100, 100, 100, 100]), np.array([-0.8, -0.6, -0.2, 1.0])
    assert ratio.split(action, 85, left, left * 0).tolist() == [5, 10, 20, 50]
    assert ratio.split(action, 205, left, left * 0).tolist() == [15, 30, 60, 100]


def test_where_no_fraction_is_wanted_but_some_must_go_all_groups_lose_alike(ratio):
    left = np.array([10, 20, 30, 40])
    assert ratio.split(np.full(4, -1.0), 10, left, left * 0).tolist() == [1, 2, 3, 4]


def test_a_fraction_does_not_depend_on_what_went_before_and_the_split_by_shares_may(ratio, kind):
    left, given_before = np.array([10, 10, 10, 10]), np.array([0, 9, 0, 0])
    for each, depends in ((ratio, False), (kind, True)):
        splits = [each.split(np.zeros(4), 6, left, g) for g in (left * 0, given_before)]
        assert np.array_equal(*splits) != depends


def test_all_box_actions_check_alike(ratio, kind):
    assert ratio.space() == kind.space()
    with pytest.raises(ValueError, match="action is NaN"):
        ratio.parse([0, 0, 0, np.nan])


# Counts

WIDTHS = np.array([9, 16, 4, 3])


@pytest.fixture
def counts():
    return make_action("counts", WIDTHS, 3.0, 4)  # 3, 4, 1 and 1 units, of which one is the floor


def test_counts_range_from_the_floor_to_the_dense_width_in_units(counts):
    assert counts.space().nvec.tolist() == [3, 4, 1, 1]


def test_groups_lose_what_they_hold_beyond_their_number_and_never_grow(counts):
    for wanted, left, expected in (
        ([2, 3, 0, 0], [2, 3, 0, 0], [0, 0, 0, 0]),
        ([0, 1, 0, 0], [2, 3, 0, 0], [2, 2, 0, 0]),
        ([2, 1, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0]),
    ):
        available, parsed = np.array(left), counts.parse(np.array(wanted))
        asked = counts.asks(parsed, 1, available)
        assert (np.abs(parsed) <= 1).all() and asked == sum(expected)
        assert counts.split(parsed, asked, available, available * 0).tolist() == expected


@given(st.lists(st.integers(0, 299), min_size=4, max_size=4))
def test_every_count_survives_being_written_as_a_number_from_minus_one_to_one(wanted):
    kind, left = make_action("counts", np.full(4, 300), 1.0), np.full(4, 299)
    parsed = kind.parse(np.array(wanted))
    assert kind.split(parsed, kind.asks(parsed, 1, left), left, left * 0).tolist() == [
        299 - count for count in wanted
    ]


@pytest.mark.parametrize(
    "bad",
    [[3, 0, 0, 0], [-1, 0, 0, 0], [0, 0, 0], [0.0, 1.0, 0.0, 0.0], None, [np.nan] * 4, "abcd"],
)
def test_counts_outside_the_space_are_refused(counts, bad):
    with pytest.raises(ValueError, match=r"action=.*4 integers from 0"):
        counts.parse(bad)
