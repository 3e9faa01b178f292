"""Attention in a CNN: heads, or the places in each head, are channels where that can be shown.

Every block maps `(N, 24, 4, 4)` to the same shape, between a convolution "stem" and a frozen one,
"head". There are three heads of eight channels.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter


class Block(nn.Module):
    """Tokens in, tokens out."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.mix(x.flatten(2).transpose(1, 2))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])

    def mix(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class Heads(Block):
    """timm's attention: widths in attributes, a scale that stays what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.attn_dim = 3, 8, 24
        self.scale = 8**-0.5
        self.qkv, self.proj = nn.Linear(24, 72), nn.Linear(24, 24)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return ((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v

    def mix(self, x: Tensor) -> Tensor:
        y = self.weigh(*self.split(x))
        return self.proj(y.transpose(1, 2).reshape(len(x), x.shape[1], self.attn_dim))


class Fused(Heads):
    """The scale is that of the head width: heads go as a whole."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


class FusedScaled(Heads):
    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, scale=self.scale)


class ScaledByShape(Heads):
    """The same, in the open."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1) @ v


class ScaledByAttribute(Heads):
    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(-1) @ v


class WidthOfInput(Heads):
    """As many channels come out of the heads as came in: they are one number."""

    def mix(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        return self.proj(self.weigh(*self.split(x)).transpose(1, 2).reshape(n, t, c))


class FusedWidthOfInput(WidthOfInput):
    """MetaFormer's."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


class Covariance(WidthOfInput):
    """XCiT: channels of a head compete, so heads go as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(3, 1, 1))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        n, t, c = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, c // self.num_heads)
        return qkv.permute(2, 0, 3, 4, 1).unbind(0)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        y = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v
        return y.transpose(-2, -1)


class Factorised(WidthOfInput):
    """CoaT: keys and values first, a matrix with channels on both sides."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.scale * (q @ (k.softmax(2).transpose(-1, -2) @ v))


class Positive(Factorised):
    """What is silent does not stay zero: it must not be pruned by place."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        return q @ (k.transpose(-1, -2) @ v)


class Windows(Heads):
    """Swin: a table of relative positions with a column per head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 3))
        self.index: Tensor
        self.register_buffer("index", torch.arange(256).reshape(16, 16) % 7)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(16, 16, -1).permute(2, 0, 1)
        scores = (q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        return scores.softmax(-1) @ v


class FusedWindows(Windows):
    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        bias = self.table[self.index.view(-1)].view(16, 16, -1).permute(2, 0, 1).contiguous()
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias.unsqueeze(0))


class Rotary(Heads):
    """Halves of a head turn together, by angles that are made for its width."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        angles = torch.arange(16.0).double()[:, None] / 10 ** (torch.arange(4.0).double() / 4)
        cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))

        def turned(x: Tensor) -> Tensor:
            a, b = x.chunk(2, -1)
            return x * cos + torch.cat([-b, a], -1) * sin

        return super().weigh(turned(q), turned(k), v)


class HeadsThatDiffer(Heads):
    """Only the first head looks back: a number in the code, of heads; places may go."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)
        back = torch.ones(16, 16, dtype=torch.bool).tril()
        first = scores[:, :1].masked_fill(~back, -1e4)
        return torch.cat([first, scores[:, 1:]], 1).softmax(-1) @ v


class HeadsMixed(Heads):
    """Talking heads: a product over them."""

    def __init__(self) -> None:
        super().__init__()
        self.talk = nn.Conv2d(3, 3, 1)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.talk((q * self.scale) @ k.transpose(-2, -1)).softmax(-1) @ v


class Averaged(Heads):
    """The mean of the heads' weights depends on how many there are."""

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = (q * self.scale) @ k.transpose(-2, -1)
        return scores.mean(1, keepdim=True).softmax(-1) @ v


class Normalised(Heads):
    """Queries and keys are normalised over the places of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.q_norm, self.k_norm = nn.LayerNorm(8), nn.LayerNorm(8)

    def weigh(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return super().weigh(self.q_norm(q), self.k_norm(k), v)


class Torch(Block):
    def __init__(self, weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(24, 3, batch_first=True)
        self.weights = weights

    def mix(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.weights)[0]


class TorchWithWeights(Torch):
    def __init__(self) -> None:
        super().__init__(weights=True)


class SingleHead(nn.Module):
    """SHViT: uneven parts of a convolution are query, key and value."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.qk, self.v = 4**-0.5, 4, 8
        self.qkv = nn.Sequential(nn.Conv2d(24, 16, 1), nn.BatchNorm2d(16))
        self.proj = nn.Conv2d(8, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.qkv(x), [self.qk, self.qk, self.v], dim=1)
        q, k, v = q.flatten(2), k.flatten(2), v.flatten(2)
        weights = ((q.transpose(-2, -1) @ k) * self.scale).softmax(-1)
        y = (v @ weights.transpose(-2, -1)).reshape(len(x), self.v, *x.shape[2:])
        return self.proj(y)


class Between(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block, self.head = nn.Conv2d(3, 24, 3, 1, 1), block, nn.Conv2d(24, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(self.stem(x).relu()).relu())


#: Sizes of the groups that a block leaves. 24 is the stem, or what comes out of the block.
CASES: dict[type[nn.Module], list[int]] = {
    Heads: [8, 24, 24],
    Fused: [3, 24, 24],
    FusedScaled: [8, 24, 24],
    ScaledByShape: [3, 24, 24],
    ScaledByAttribute: [3, 24, 24],
    WidthOfInput: [8, 24],
    FusedWidthOfInput: [3, 24],
    Covariance: [3, 24],
    Factorised: [8, 24],
    Positive: [3, 24],
    Windows: [8, 24, 24],
    FusedWindows: [3, 24, 24],
    Rotary: [3, 24, 24],
    HeadsThatDiffer: [8, 24, 24],
    HeadsMixed: [3, 24, 24],
    Averaged: [8, 24, 24],
    Normalised: [8, 24, 24],
    Torch: [3],  # it returns as many channels as it is given
    TorchWithWeights: [3],
    SingleHead: [4, 8, 24, 24],
}


def built(block: nn.Module) -> tuple[Between, tuple[Tensor]]:
    torch.manual_seed(0)
    network = Between(block).double().eval()
    jitter(network)
    return network, (torch.randn(2, 3, 4, 4, dtype=torch.float64),)


@pytest.mark.parametrize("block", CASES)
def test_heads_or_their_places_are_channels(block: type[nn.Module]) -> None:
    network, inputs = built(block())
    graph = ChannelGraph.trace(network, inputs)
    assert sorted(graph.sizes.tolist()) == CASES[block]
    for ratio in (0.0, 0.3, 0.6):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        check_pruning(graph, network, inputs, keep)
