"""Pictures of an episode, as text and as pixels."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.envs.rendering import FRAME_SHAPE, Painter, render_ansi
from pruning_env.evaluation.evaluator import Metrics
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningState
from tests.helpers.small import small_dynamics, small_evaluator

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
        frame = Painter(dynamics.graph, dynamics.budgets).frame(history[:length])
        assert frame.shape == FRAME_SHAPE and frame.dtype == np.uint8
        assert frame.flags.owndata and frame.flags.writeable


def test_pixels_change_with_the_state_and_only_with_it(dynamics, history):
    painter = Painter(dynamics.graph, dynamics.budgets)
    frames = [painter.frame(history[:n]) for n in (2, 2, 3, 2)]
    assert np.array_equal(frames[0], frames[1]) and np.array_equal(frames[0], frames[3])
    assert not np.array_equal(frames[1], frames[2])
    fresh = Painter(dynamics.graph, dynamics.budgets).frame(history[:3])
    assert np.array_equal(frames[2], fresh)


def test_a_longer_history_gets_a_longer_axis(dynamics, history):
    painter = Painter(dynamics.graph, dynamics.budgets)
    short, long = history, [replace(history[-1], step=step) for step in range(14)]
    frames = [painter.frame(each) for each in (short, long, short)]
    assert np.array_equal(frames[0], frames[2])
    fresh = Painter(dynamics.graph, dynamics.budgets).frame(long)
    assert np.array_equal(frames[1], fresh)


def chain(*widths, name="layer"):
    """The graph and the dense state of a chain of convolutions; the last one's outputs stay."""
    model = nn.Sequential()
    for index, (before, after) in enumerate(pairwise(widths)):
        model.add_module(f"{name}{index}", nn.Conv2d(before, after, 1))
    graph = ChannelGraph.trace(model, torch.zeros(1, widths[0], 4, 4))
    still = np.zeros(len(graph.groups))
    metrics = Metrics(0.5, 1.0)
    state = PruningState(graph.full(), graph.sizes, 0, metrics, (1.0,), 1.0, 1.0, still, 0, 0)
    return graph, state


def test_a_group_that_keeps_one_channel_of_many_still_shows_a_bar():
    graph, dense = chain(1, 64, 2)
    row = render_ansi(graph, parse_budget(None), [replace(dense, counts=[1])]).splitlines()[-1]
    assert "1/64" in row and row.count("█") == 1


def test_long_names_and_many_groups_leave_room_for_the_bars():
    graph, dense = chain(*[2] * 41, name="stage_" + "very_" * 20 + "long_name")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns when a layout collapses
        frame = Painter(graph, parse_budget(None)).frame([dense])
    assert len(graph.groups) == 39 and frame.shape == FRAME_SHAPE
    blue = (frame == (0x00, 0x72, 0xB2)).all(axis=2)
    assert blue.mean() > 0.2
