"""Many splits at once are what each would be alone, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_env.process.actions import DistributionAction
from pruning_env.process.allocation import allocate, distribution


@given(
    st.integers(1, 12), st.integers(1, 20), st.integers(0, 60), st.booleans(), st.integers(0, 999)
)
def test_a_row_of_many_allocations_is_the_allocation_of_the_row(groups, rows, total, gave, seed):
    rng = np.random.default_rng(seed)
    # Small whole numbers tie and are often 0; the others differ by many orders of magnitude.
    p = rng.choice([rng.integers(0, 4, (rows, groups)), np.exp(rng.normal(0, 9, (rows, groups)))])
    available = rng.integers(0, 9, (rows, groups))
    given_before = rng.integers(0, 9, (rows, groups)) if gave else None
    together = allocate(total, p, available, given_before)
    assert together.shape == (rows, groups) and together.dtype == np.int64
    for row in range(rows):
        before = None if given_before is None else given_before[row]
        assert np.array_equal(together[row], allocate(total, p[row], available[row], before))


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 999))
def test_a_row_of_many_distributions_is_the_distribution_of_the_row(groups, rows, seed):
    rng = np.random.default_rng(seed)
    actions, sizes = rng.uniform(-1, 1, (rows, groups)), rng.integers(1, 64, groups)
    together = distribution(actions, sizes, 3.0)
    assert all(
        np.array_equal(together[row], distribution(actions[row], sizes, 3.0)) for row in range(rows)
    )


def test_many_actions_are_parsed_as_one_is_and_a_bad_one_is_named():
    kind = DistributionAction(np.array([4, 8]), 3.0)
    rows = [[0.5, -np.inf], [3, 0]]
    for given_as in (rows, np.array(rows), np.array(rows, np.float32), iter(rows)):
        assert kind.parse_many(given_as).tolist() == [[0.5, -1.0], [1.0, 0.0]]
    with pytest.raises(ValueError, match="slot 1: action is NaN"):
        kind.parse_many([[0, 0], [0, np.nan]])
    with pytest.raises(ValueError, match="slot 0: action has shape"):
        kind.parse_many(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="one action per slot"):
        kind.parse_many(5)
