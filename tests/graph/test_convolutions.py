"""Convolutions of other kinds: along the channels, deformable, with a borrowed weight.

All are between layers "a" of 8 and "b" of 12 channels and a frozen head "c".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import DeformConv2d

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter


class Gated(nn.Module):
    """ECA's gate: a convolution over neighbouring channels' means."""

    def __init__(self, kernel: int, mode: Literal["zeros", "circular"] = "zeros") -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.gate = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False, padding_mode=mode)
        self.c = nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())
        y = self.gate(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return self.c(x * y.view(x.shape[0], -1, 1, 1).expand_as(x))


class Mixing(nn.Module):
    """Sums over scales: what the convolution takes for channels are three pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, padding=1)
        self.mix, self.c = nn.Conv1d(3, 2, 1), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.b(self.a(x).relu())
        pooled = [functional.adaptive_max_pool2d(maps, n).mean((2, 3)) for n in (1, 2, 4)]
        return self.c(self.mix(torch.stack(pooled, 1)).relu())


class Deformed(nn.Module):
    """A deformable convolution "b" with offsets, in groups, and masks, of the same input."""

    def __init__(self, groups: int, offset_groups: int, masked: bool) -> None:
        super().__init__()
        places = 9 * offset_groups
        self.a, self.b = nn.Conv2d(3, 8, 3), DeformConv2d(8, 16, 3, padding=1, groups=groups)
        self.offsets, self.c = nn.Conv2d(8, 2 * places, 1), nn.Conv2d(16, 4, 1)
        self.mask = nn.Conv2d(8, places, 1) if masked else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        mask = None if self.mask is None else self.mask(x).sigmoid()
        return self.c(self.b(x, self.offsets(x), mask).relu())


class Borrowed(nn.Module):
    """A linear layer's weight as that of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Linear(8, 12), nn.Conv2d(12, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.b.weight[:, :, None, None]
        return self.c(functional.conv2d(self.a(x), weight, self.b.bias).relu())


BOTH = {"a": 8, "b": 12}
CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "gate over three neighbours": (lambda: Gated(3), BOTH),
    "gate over five neighbours": (lambda: Gated(5), BOTH),
    "gate in a circle": (lambda: Gated(3, "circular"), {"a": 8}),
    "mixer": (Mixing, BOTH),
    "deformable": (lambda: Deformed(1, 1, False), {"a": 8, "b": 16}),
    "deformable, masked": (lambda: Deformed(1, 1, True), {"a": 8, "b": 16}),
    "deformable, with two offsets": (lambda: Deformed(1, 2, True), {"a": 4, "b": 16}),
    "deformable, in four groups": (lambda: Deformed(4, 1, True), {"a": 2, "b": 4}),
    "deformable, depthwise": (lambda: Deformed(8, 1, False), {"a": 8}),
    "borrowed": (Borrowed, BOTH),
}


@pytest.mark.parametrize("name", CASES)
def test_the_channels_of_another_convolution_go(name: str) -> None:
    build, expected = CASES[name]
    torch.manual_seed(0)
    network = build().double().eval()
    jitter(network)
    inputs = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == expected
    for ratio in (0.5, 0.0):
        keep = graph.random_keep(ratio, np.random.default_rng(3))
        assert check_pruning(graph, network, inputs, keep).effect > 1e-4
        small = graph.prune(network, keep)
        assert small.a.out_channels == len(small.a.weight)  # type: ignore[arg-type, union-attr]
        if isinstance(small.b, DeformConv2d):
            assert small.b.in_channels == small.a.out_channels  # type: ignore[union-attr]
            assert small.b.out_channels == small.c.in_channels  # type: ignore[union-attr]


def test_why_what_a_convolution_along_the_channels_freezes_stays() -> None:
    image = torch.randn(1, 3, 8, 8)
    frozen = ChannelGraph.trace(Gated(3).eval(), image).frozen
    assert frozen["gate"] == "a second channel dimension at conv1d in gate"
    frozen = ChannelGraph.trace(Gated(3, "circular").eval(), image).frozen
    assert frozen["b"] == "pad in gate cuts or mirrors channels by number"
    frozen = ChannelGraph.trace(Deformed(1, 1, True).eval(), image).frozen
    assert frozen["offsets"] == "steers torchvision::deform_conv2d in b"


def test_a_gate_runs_on_the_neighbours_that_are_kept() -> None:
    """Against the formula, since the masked twin runs the very same gate."""
    torch.manual_seed(0)
    network = Gated(3).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = ChannelGraph.trace(network, x)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    inputs, outputs = (torch.from_numpy(keep[graph.group_index == g]) for g in range(2))
    y = functional.conv2d(x, network.a.weight[inputs], network.a.bias[inputs], padding=1).relu()  # type: ignore[index]
    weight, bias = network.b.weight[outputs][:, inputs], network.b.bias[outputs]  # type: ignore[index]
    y = functional.conv2d(y, weight, bias, padding=1)
    means = functional.pad(y.mean((2, 3)), (1, 1))
    left, middle, right = network.gate.weight.flatten()
    gate = left * means[:, :-2] + middle * means[:, 1:-1] + right * means[:, 2:]
    y = y * gate.sigmoid()[..., None, None]
    expected = functional.conv2d(y, network.c.weight[:, outputs], network.c.bias)
    torch.testing.assert_close(graph.prune(network, keep)(x), expected, rtol=1e-10, atol=1e-12)
