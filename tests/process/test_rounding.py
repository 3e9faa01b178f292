from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pruning_env  # noqa: F401  (registers the environments)
from pruning_env.process.rounding import WidthUnits

SIZES = st.lists(st.integers(2, 60), min_size=1, max_size=8).map(np.array)


@given(sizes=SIZES, round_to=st.integers(1, 12), data=st.data())
def test_taking_units_one_after_another_equals_taking_them_at_once(sizes, round_to, data):
    if round_to >= sizes.max():
        return
    units = WidthUnits(sizes, round_to)
    wanted = np.array([data.draw(st.integers(0, int(n))) for n in units.left(sizes)])
    at_once = units.take(sizes, wanted)
    counts = sizes
    for _ in range(int(wanted.max(initial=0))):
        due = (units.given(counts) < wanted).astype(int)
        counts = units.take(counts, due)
    assert counts.tolist() == at_once.tolist()
    assert units.given(at_once).tolist() == wanted.tolist()
    assert (units.left(at_once) + wanted).tolist() == units.left(sizes).tolist()
    assert units.reachable(at_once)
    assert (at_once >= units.floors).all()


def test_groups_keep_their_dense_width_or_a_multiple():
    units = WidthUnits(np.array([20, 16, 5]), 8)
    assert units.floors.tolist() == [8, 8, 5]
    assert units.left(np.array([20, 16, 5])).tolist() == [2, 1, 0]
    assert units.take(np.array([20, 16, 5]), np.array([1, 1, 0])).tolist() == [16, 8, 5]
    assert not units.reachable(np.array([18, 16, 5]))


@pytest.mark.parametrize("round_to", [0, -8, 2.5, True, "8"])
def test_a_bad_unit_is_refused(round_to):
    with pytest.raises(ValueError, match="round_to="):
        WidthUnits(np.array([16, 32]), round_to)


def test_a_unit_as_wide_as_the_widest_group_is_refused():
    with pytest.raises(ValueError, match="leaves nothing to prune; the widest group has 32"):
        WidthUnits(np.array([16, 32]), 32)


def test_the_environment_honours_round_to_at_every_step_to_the_end():
    env = gym.make("CNNPrune-v0", round_to=8, budget={"params": 1e-6}, channels_per_step=0.1)
    env.action_space.seed(0)
    _, info = env.reset(seed=0)
    u: Any = env.unwrapped
    done = False
    while not done:
        before = u.state().counts
        _, _, done, _, info = env.step(env.action_space.sample())
        counts = u.state().counts
        assert ((counts % 8 == 0) | (counts == u.graph.sizes)).all()
        assert info["removed"] == (before - counts).sum()
        assert info["removed"] == info["requested"] or info["exhausted"]
    assert info["exhausted"] and (u.state().counts == 8).all()
    model = u.pruned_model()
    widths = [m.out_channels for m in model.modules() if hasattr(m, "out_channels")]
    assert all(width % 8 == 0 for width in widths)
