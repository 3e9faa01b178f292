"""`render_mode="human"` draws after each step and reset, here without a display."""

import pickle
import warnings
from typing import Any

import gymnasium as gym
import matplotlib
import numpy as np
import pytest

import pruning_env  # noqa: F401  (registers the environments)

matplotlib.use("Agg")
IDS = ("CNNPrune-v0", "CNNPruneTabular-v0")


def drawn() -> np.ndarray:
    """What the window shows."""
    from matplotlib import pyplot

    canvas: Any = pyplot.gcf().canvas
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def frame(env: gym.Env) -> np.ndarray:
    """What `rgb_array` gives."""
    shown = env.render()
    assert isinstance(shown, np.ndarray)
    return shown


@pytest.mark.parametrize("env_id", IDS)
def test_the_window_shows_what_rgb_array_returns_after_reset_and_step(env_id: str) -> None:
    from matplotlib import pyplot

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Gymnasium warns where it has to help with a wrapper
        env, other = (
            gym.make(env_id, render_mode="human"),
            gym.make(env_id, render_mode="rgb_array"),
        )
        for each in (env, other):
            each.reset(seed=0)
        assert np.array_equal(drawn(), frame(other))
        for each in (env, other):
            each.step(np.zeros(6, np.float32))
        assert np.array_equal(drawn(), frame(other))
        assert env.render() is None
    assert len(pyplot.get_fignums()) == 1
    fork = env.unwrapped.fork()  # type: ignore[attr-defined]
    fork.step(np.ones(6, np.float32))
    assert len(pyplot.get_fignums()) == 2
    fork.close()
    copy = pickle.loads(pickle.dumps(env.unwrapped))
    copy.render()
    copy.close()
    assert len(pyplot.get_fignums()) == 1
    env.close()
    assert not pyplot.get_fignums()
