"""Recurrent layers between convolutions: inputs and hidden units go, as the masked twin says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter, worst


class Rows(nn.Module):
    """A convolution "a" of 6 channels, a recurrent layer "b" over rows of pixels, a head "c"."""

    def __init__(self, kind: Callable[..., nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 6, 3, padding=1)
        self.b = kind(6, 5, **options)
        out = (options.get("proj_size") or 5) * (2 if options.get("bidirectional") else 1)
        self.c = nn.Conv2d(out, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        height, width = x.shape[2:]
        rows = (
            x.flatten(2).permute(0, 2, 1) if self.b.batch_first else x.flatten(2).permute(2, 0, 1)
        )
        y = self.b(rows)[0]
        y = y.permute(0, 2, 1) if self.b.batch_first else y.permute(1, 2, 0)
        return self.c(y.unflatten(2, (height, width)))


class Stepped(nn.Module):
    """The same with a cell, which is called step by step."""

    def __init__(self, kind: type[nn.RNNCellBase], zeros: str = "its own") -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 6, 3), kind(6, 5), nn.Linear(5, 2)  # type: ignore[call-arg]
        self.zeros, self.hidden = zeros, 5

    def forward(self, x: Tensor) -> Tensor:
        columns = self.a(x).mean(3).unbind(2)
        zeros = None
        if self.zeros != "its own":
            zeros = x.new_zeros(x.shape[0], self.hidden if self.zeros == "attribute" else 5)
        state: Any = zeros
        if zeros is not None and isinstance(self.b, nn.LSTMCell):
            state = (zeros, zeros)
        for column in columns:
            state = self.b(column, state)
        return self.c(state[0] if isinstance(state, tuple) else state)


BOTH = {"a": 6, "b": 5}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "lstm": (lambda: Rows(nn.LSTM, batch_first=True), BOTH),
    "gru": (lambda: Rows(nn.GRU), BOTH),
    "tanh": (lambda: Rows(nn.RNN, bias=False), BOTH),
    "relu": (lambda: Rows(nn.RNN, nonlinearity="relu", batch_first=True), BOTH),
    "lstm, both ways": (lambda: Rows(nn.LSTM, bidirectional=True), BOTH),
    "gru, both ways, two layers": (
        lambda: Rows(nn.GRU, bidirectional=True, num_layers=2, batch_first=True),
        BOTH,
    ),
    "lstm, three layers": (lambda: Rows(nn.LSTM, num_layers=3, dropout=0.1), BOTH),
    "lstm that projects": (lambda: Rows(nn.LSTM, proj_size=3), {"a": 6}),
    "lstm cell": (lambda: Stepped(nn.LSTMCell), BOTH),
    "gru cell": (lambda: Stepped(nn.GRUCell), BOTH),
    "cell": (lambda: Stepped(nn.RNNCell), BOTH),
    "cell with zeros as many as an attribute says": (
        lambda: Stepped(nn.GRUCell, "attribute"),
        BOTH,
    ),
    "cell with a written number of zeros": (lambda: Stepped(nn.LSTMCell, "literal"), {"a": 6}),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_and_hidden_units_of_a_recurrent_layer_are_channels(name: str) -> None:
    build, expected = CASES[name]
    torch.manual_seed(0)
    network = build().double().eval()
    jitter(network)
    inputs = (torch.randn(2, 3, 6, 6, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == expected
    for ratio in (0.5, 0.1):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        assert check_pruning(graph, network, inputs, keep).effect > 1e-3  # macs, too
        small = graph.prune(network, keep)
        counts = dict(zip(expected, graph.counts(keep).tolist(), strict=True))
        assert small.b.input_size == counts["a"]  # type: ignore[union-attr]
        assert small.b.hidden_size == counts.get("b", 5)  # type: ignore[union-attr]


def test_a_pruned_lstm_runs_in_the_kernels_of_single_precision() -> None:
    """They are other ones, and the counter of operations does not see them."""
    torch.manual_seed(0)
    network = Rows(nn.LSTM, batch_first=True, num_layers=2).eval()
    x = torch.randn(2, 3, 6, 6)
    graph = ChannelGraph.trace(network, x)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    with torch.no_grad():
        assert worst(graph.prune(network, keep)(x), graph.mask(network, keep)(x)) < 1e-5
    a, b = graph.counts(keep)
    places = 36
    lstm = 4 * b * (a + b) + 4 * b * (b + b)
    assert graph.macs(keep) == places * (a * 27 + lstm + 2 * b)


def test_a_state_that_channels_begin_is_tied_to_the_hidden_units() -> None:
    class Begun(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.d = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 5, 3)
            self.b, self.c = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            begin = self.d(x).mean((2, 3)).unsqueeze(0)
            return self.c(self.b(self.a(x).flatten(2).transpose(1, 2), begin)[1][0])

    network = Begun().double().eval()
    inputs = (torch.randn(2, 3, 6, 6, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {g.name: g.layers for g in graph.groups} == {"a": ("a",), "d": ("d", "b")}
    check_pruning(graph, network, inputs, graph.random_keep(0.5, np.random.default_rng(0)))


def test_a_layer_whose_steps_are_channels_holds_them() -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 6, 3), nn.LSTM(16, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x).flatten(2).transpose(0, 1))[0][-1])

    graph = ChannelGraph.trace(Steps().eval(), torch.randn(2, 3, 6, 6))
    assert graph.frozen["a"] == "channels are not where lstm in b expects them"
    assert [group.name for group in graph.groups] == ["b"]
