"""Numbers of channels that code reads from attributes of its modules: they follow.

Every block maps 8 channels to `out`, between a convolution "stem" and a frozen one, "head".
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter


def conv(into: int, out: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2, groups=groups)


class CrossStage(nn.Module):
    """YOLOv8's C2f: halves of a width that is an attribute."""

    out = 8

    def __init__(self) -> None:
        super().__init__()
        self.c, self.cv1, self.cv2 = 4, conv(8, 8), conv(16, 8)
        self.m = nn.ModuleList(conv(4, 4, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = list(self.cv1(x).split((self.c, self.c), 1))
        y.extend(m(y[-1]) for m in self.m)
        return self.cv2(torch.cat(y, 1))


class Scale(nn.Module):
    """MetaFormer's scale: a shape in an attribute."""

    out = 8

    def __init__(self) -> None:
        super().__init__()
        self.shape, self.scale = (8, 1, 1), nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(self.shape)


class Reshaped(nn.Module):
    out = 8

    def __init__(self) -> None:
        super().__init__()
        self.dim, self.inner = 8, conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).reshape(len(x), self.dim, -1).reshape(len(x), self.dim, *x.shape[2:])


class Coincidence(Reshaped):
    """Another attribute that equals the width, but is none."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 8

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.heads**-0.5


class Between(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv(3, 8, 3), block, conv(block.out, 4)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x).relu()))


def built(block: nn.Module) -> tuple[Between, tuple[Tensor]]:
    torch.manual_seed(0)
    network = Between(block).double().eval()
    jitter(network)
    return network, (torch.randn(2, 3, 8, 8, dtype=torch.float64),)


STEM = {"stem": 8}
CASES: dict[type[nn.Module], dict[str, int]] = {
    CrossStage: {**STEM, "block.cv1": 4, "block.m.0": 4, "block.m.1": 4, "block.cv2": 8},
    Scale: STEM,
    Reshaped: {**STEM, "block.inner": 8},
    Coincidence: {**STEM, "block.inner": 8},
}


@pytest.mark.parametrize("block", CASES)
def test_a_width_in_an_attribute_follows(block: type[nn.Module]) -> None:
    network, inputs = built(block())
    before = {name: value for name, value in vars(network.block).items() if name[0] != "_"}
    graph = ChannelGraph.trace(network, inputs)
    groups = {group.name: group.size for group in graph.groups}
    assert sorted(groups.values()) == sorted(CASES[block].values())
    assert groups.keys() == CASES[block].keys()
    assert graph.frozen == {"head": "an output of the model"}
    for ratio in (0.0, 0.3, 0.5, 0.8):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        check_pruning(graph, network, inputs, keep)
    after = {name: value for name, value in vars(network.block).items() if name[0] != "_"}
    assert before == after


def test_only_numbers_that_are_widths_follow() -> None:
    network, inputs = built(Coincidence())
    graph = ChannelGraph.trace(network, inputs)
    assert {attribute.name for attribute in graph.attributes} == {"dim"}
