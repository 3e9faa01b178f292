"""Pictures of an episode, as text and as pixels."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.budgets import parse_budget
from pruning_env.channels import ChannelGraph
from pruning_env.dynamics import PruningState
from pruning_env.evaluator import Metrics
from pruning_env.rendering import FRAME_SHAPE, render_ansi, render_rgb
from tests.small import small_dynamics, small_evaluator

EVALUATOR = small_evaluator()


@pytest.fixture(scope="module")
def dynamics():
    return small_dynamics(EVALUATOR, {"params": 0.1, "macs": 0.05}, channels_per_step=0.2)


@pytest.fixture(scope="module")
def history(dynamics):
    states = [dynamics.initial()]
    for action in ([1, -1, 0], [-1, 1, 0]):
        states.append(dynamics.transition(states[-1], np.array(action)).state)
    return states


def test_text_names_every_group_with_its_counts(dynamics, history):
    lines = render_ansi(dynamics.graph, dynamics.budgets, history).splitlines()
    for group, count in zip(dynamics.graph.groups, history[-1].counts, strict=True):
        (row,) = [line for line in lines if line.startswith(group.name)]
        assert f"{count}/{group.size}" in row


def test_text_starts_with_step_accuracy_and_budgets(dynamics, history):
    headline = render_ansi(dynamics.graph, dynamics.budgets, history).splitlines()[0]
    state = history[-1]
    assert "step 2" in headline and f"{state.metrics.accuracy:.1%}" in headline
    assert f"params {state.usage[0]:.1%} (limit 10.0%)" in headline
    assert f"macs {state.usage[1]:.1%} (limit 5.0%)" in headline


def test_bars_are_as_long_as_the_share_kept_and_never_empty(dynamics, history):
    text = render_ansi(dynamics.graph, dynamics.budgets, history[:1])
    assert text.count("█" * 20) == len(dynamics.graph.groups) and "░" not in text
    one = history[-1]
    for row in render_ansi(dynamics.graph, dynamics.budgets, [one]).splitlines()[3:]:
        assert 1 <= row.count("█") <= 20 and row.count("█") + row.count("░") == 20


def test_pixels_have_one_shape_whatever_the_length_of_the_episode(dynamics, history):
    for length in (1, 2, 3):
        frame = render_rgb(dynamics.graph, dynamics.budgets, history[:length])
        assert frame.shape == FRAME_SHAPE and frame.dtype == np.uint8
        assert frame.flags.owndata and frame.flags.writeable


def test_pixels_change_with_the_state_and_only_with_it(dynamics, history):
    frames = [render_rgb(dynamics.graph, dynamics.budgets, history[:n]) for n in (2, 2, 3)]
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[1], frames[2])


def test_long_names_and_many_groups_still_fit():
    model = nn.Sequential()
    for index in range(40):
        model.add_module(f"stage{index}_{'very_' * 20}long_name", nn.Conv2d(2, 2, 1))
    graph = ChannelGraph.trace(model, torch.zeros(1, 2, 4, 4))
    assert len(graph.groups) == 39
    state = PruningState(
        graph.full(), graph.sizes, 0, Metrics(0.5, 1.0), (1.0,), 1.0, 1.0, np.zeros(39), 0, 0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns when a layout collapses
        assert render_rgb(graph, parse_budget(None), [state]).shape == FRAME_SHAPE


def test_drawing_touches_no_figure_manager_and_no_backend():
    # In a process of its own: other tests may have imported pyplot.
    script = (
        "import sys, numpy as np\n"
        "from pruning_env.rendering import render_rgb\n"
        "from tests.small import small_dynamics\n"
        "d = small_dynamics()\n"
        "render_rgb(d.graph, d.budgets, [d.initial()])\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
