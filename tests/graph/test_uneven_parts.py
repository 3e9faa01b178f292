"""Parts of channels that code cuts unevenly are channels of their own, where their numbers follow.

Every block maps 12 channels to `out`, between a convolution "stem" and a frozen one, "head".
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter


def conv(into: int, out: int, kernel: int = 1) -> nn.Conv2d:
    return nn.Conv2d(into, out, kernel, padding=kernel // 2)


class Partial(nn.Module):
    """FasterNet's partial convolution: a quarter of the channels is convolved."""

    out = 12

    def __init__(self) -> None:
        super().__init__()
        self.some, self.rest, self.inner = 3, 9, conv(3, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        some, rest = torch.split(x, [self.some, self.rest], 1)
        return torch.cat([self.inner(some), rest], 1)


class Remainder(Partial):
    """The second size is computed from the attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = 12  # of all

    def forward(self, x: Tensor) -> Tensor:
        some, rest = x.split((self.some, self.rest - self.some), 1)
        return torch.cat([self.inner(some), rest], 1)


class Listed(nn.Module):
    """FocalNet's list of sizes."""

    out = 5

    def __init__(self) -> None:
        super().__init__()
        self.sizes, self.cut = [5, 5, 2], conv(12, 12)
        self.a, self.b = conv(5, 5), conv(2, 5)

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = torch.split(self.cut(x), self.sizes, 1)
        return query.relu() * self.a(context).sigmoid() + self.b(gates)


class Sliced(nn.Module):
    """DPN's slices from both sides of one place."""

    out = 12

    def __init__(self) -> None:
        super().__init__()
        self.k, self.inner = 8, conv(12, 12)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return torch.cat([x[:, : self.k] + y[:, : self.k], y[:, self.k :]], 1)


class Narrowed(nn.Module):
    out = 5

    def __init__(self) -> None:
        super().__init__()
        self.start, self.length = 7, 5

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(1, self.start, self.length)


class Swapped(nn.Module):
    """Parts that live in the same tensors are still two numbers."""

    out = 12

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = 4, 8

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split((self.a, self.b), 1)
        return torch.cat([b, a], 1)


class Literal(nn.Module):
    out = 12

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split((4, 8), 1)
        return torch.cat([b, a], 1)


class First(nn.Module):
    """What comes after a number in the code may go; what comes before may not."""

    out = 12

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, 4:], x[:, :4].tanh()], 1)


class Fraction(nn.Module):
    """A third of however many: right at any mask that narrows both parts alike."""

    out = 12

    def forward(self, x: Tensor) -> Tensor:
        third = x.shape[1] // 3
        return torch.cat([x[:, third:], x[:, :third].tanh()], 1)


class Eighth(nn.Module):
    """No fraction of the parts' common divisor."""

    out = 12

    def forward(self, x: Tensor) -> Tensor:
        some = (x.shape[1] * 5) // 12
        return torch.cat([x[:, some:], x[:, :some].tanh()], 1)


class FromTheEnd(nn.Module):
    out = 12

    def __init__(self) -> None:
        super().__init__()
        self.k = 5

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, -self.k :], x[:, : -self.k].tanh()], 1)


class TwoNumbers(nn.Module):
    """One attribute counts two different parts, which must stay equal (SHViT)."""

    out = 12

    def __init__(self) -> None:
        super().__init__()
        self.k, self.whole, self.q = 4, 12, 3
        self.inner, self.up = conv(4, 3 + 4), conv(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split((self.k, self.whole - self.k), 1)
        q, v = self.inner(a).split((self.q, self.k), 1)
        return torch.cat([v * self.up(q), b], 1)


class Uneven(nn.Module):
    """The parts of `chunk` are made of its number and the width alone."""

    out = 14

    def __init__(self) -> None:
        super().__init__()
        self.inner = conv(12, 14)

    def forward(self, x: Tensor) -> Tensor:
        a, b, c = self.inner(x).chunk(3, 1)  # 5, 5 and 4
        return torch.cat([c, a, b], 1)


class Between(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = conv(3, 12, 3), block, conv(block.out, 4)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x).relu()))


#: Sizes of the groups that a block leaves.
CASES: dict[type[nn.Module], list[int]] = {
    Partial: [3, 3, 9],
    Remainder: [3, 3, 9],
    Listed: [2, 5, 5, 12],
    Sliced: [4, 4, 8],
    Narrowed: [5, 7],
    Swapped: [4, 8],
    Literal: [],
    First: [8],
    Fraction: [4],
    Eighth: [],
    FromTheEnd: [5, 7],
    TwoNumbers: [3, 4, 8],
    Uneven: [12],
}


def built(block: nn.Module) -> tuple[Between, tuple[Tensor]]:
    torch.manual_seed(0)
    network = Between(block).double().eval()
    jitter(network)
    return network, (torch.randn(2, 3, 4, 4, dtype=torch.float64),)


@pytest.mark.parametrize("block", CASES)
def test_parts_are_channels_of_their_own(block: type[nn.Module]) -> None:
    network, inputs = built(block())
    graph = ChannelGraph.trace(network, inputs)
    assert sorted(graph.sizes.tolist()) == CASES[block]
    for ratio in (0.0, 0.3, 0.5, 0.8):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        check_pruning(graph, network, inputs, keep)


def test_any_number_of_each_part_may_stay() -> None:
    """Lopsided masks: all of one part, one channel of the other."""
    network, inputs = built(Partial())
    graph = ChannelGraph.trace(network, inputs)
    for few in range(len(graph.groups)):
        counts = graph.sizes.copy()
        counts[few] = 1
        rank = graph.rank(np.random.default_rng(0).random(graph.num_channels))
        check_pruning(graph, network, inputs, graph.keep_top(rank, counts))


class BesideTheCut(nn.Module):
    """Cuts one channel before the number that it has in an attribute, and at that number, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.width = nn.Conv2d(3, 6, 1), 12
        self.twice = nn.ConvTranspose2d(6, 12, 1, groups=6)
        self.gate, self.head = nn.Conv2d(12, 12, 1), nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.twice(self.stem(x))
        both = torch.cat([y, y * 2], 1)
        a, b = both[:, : self.width - 1], both[:, self.width - 1 :]
        return self.head(torch.cat([a, b * self.gate(both[:, : self.width]).mean()], 1))


def test_a_cut_beside_a_number_is_right_whichever_channel_goes() -> None:
    """Found by random networks: only without the sixth channel the number is wrong."""
    network = BesideTheCut().double().eval()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    graph = ChannelGraph.trace(network, (x,))
    for channel in range(graph.num_channels):
        keep = graph.full()
        keep[channel] = False
        check_pruning(graph, network, (x,), keep)
