"""Blocks from published detectors and classifiers, written as their authors write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.helpers.blocks import Block, ConvUnit, Residual, conv


def unit(channels: int, out: int, kernel: int = 1, **options: Any) -> ConvUnit:
    return ConvUnit(2, channels, out, kernel=kernel, activation="silu", **options)


class Bottleneck(nn.Module):
    """YOLO's: two convolutions and a shortcut."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = unit(channels, hidden, 3), unit(hidden, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.cv2(self.cv1(x))


class C2f(Block):
    """YOLOv8's cross-stage partial block; `literal` splits with a number kept from the start."""

    def __init__(self, channels: int, out: int, hidden: int, *, literal: bool) -> None:
        super().__init__(out)
        self.c, self.literal = hidden, literal
        self.cv1, self.cv2 = unit(channels, 2 * hidden), unit(4 * hidden, out)
        self.m = nn.ModuleList(Bottleneck(hidden, 5) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        parts = list(y.split((self.c, self.c), 1) if self.literal else y.chunk(2, 1))
        parts.extend(m(parts[-1]) for m in self.m)
        return self.cv2(torch.cat(parts, 1))


class C3(Block):
    """YOLOv5's cross-stage partial block."""

    def __init__(self, channels: int, out: int, hidden: int) -> None:
        super().__init__(out)
        self.cv1, self.cv2, self.cv3 = (
            unit(channels, hidden),
            unit(channels, hidden),
            unit(2 * hidden, out),
        )
        self.m = nn.Sequential(Bottleneck(hidden, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), dim=1))


class SPPF(Block):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__(out)
        self.cv1, self.cv2 = unit(channels, 4), unit(16, out)
        self.m = nn.MaxPool2d(kernel_size=5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return self.cv2(torch.cat([x, y1, y2, self.m(y2)], 1))


class PAN(Block):
    """Three scales, top-down and bottom-up, and their heads at the coarsest scale joined."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.p4, self.p5 = unit(channels, 6, 3), unit(6, 10, 3)
        self.lateral = unit(10, 6)
        self.c4, self.c3 = C3(12, 6, 3), C3(6 + channels, channels, 4)
        self.n4 = C2f(channels + 6, 6, 3, literal=False)
        self.n5 = C2f(6 + 10, channels, 3, literal=False)
        self.pool, self.up = nn.MaxPool2d(2), nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        p4 = self.pool(self.p4(x))
        p5 = self.pool(self.p5(p4))
        top = self.c4(torch.cat([self.up(self.lateral(p5)), p4], 1))
        fine = self.c3(torch.cat([self.up(top), x], 1))
        middle = self.n4(torch.cat([self.pool(fine), top], 1))
        coarse = self.n5(torch.cat([self.pool(middle), p5], 1))
        return fine + functional.interpolate(coarse, size=fine.shape[-2:])


class ShuffleUnit(Block):
    """ShuffleNet V2's basic unit."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        half = channels // 2
        self.branch = nn.Sequential(
            unit(half, half), unit(half, half, 3, groups=half), unit(half, half)
        )

    def forward(self, x: Tensor) -> Tensor:
        x1, x2 = x.chunk(2, dim=1)
        out = torch.cat((x1, self.branch(x2)), dim=1)
        n, c, h, w = out.size()
        return out.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


class ConvNeXtBlock(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dwconv = conv(2, channels, channels, 7, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 12), nn.Linear(12, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.gamma * self.down(functional.gelu(self.up(y)))
        return x + y.permute(0, 3, 1, 2)


class Attention(Block):
    """A transformer layer over places: attention, then an MLP."""

    def __init__(self, channels: int, *, how: str) -> None:
        super().__init__(channels)
        self.how, self.heads = how, 2
        if how == "module":
            self.attend: nn.Module = nn.MultiheadAttention(channels, 2, batch_first=True)
        elif how == "encoder layer":
            self.attend = nn.TransformerEncoderLayer(channels, 2, 12, batch_first=True)
        else:
            self.qkv, self.proj = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, 10), nn.Linear(10, channels)

    def attention(self, x: Tensor) -> Tensor:
        if self.how == "module":
            return self.attend(x, x, x, need_weights=False)[0]
        if self.how == "encoder layer":
            return self.attend(x)
        n, places, channels = x.shape
        qkv = self.qkv(x).reshape(n, places, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.how == "fused":
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(n, places, channels))

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm1(tokens))
        tokens = tokens + self.down(functional.gelu(self.up(self.norm2(tokens))))
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])


class SplitAttention(Block):
    """ResNeSt's: two radix groups weighed against each other."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv = conv(2, channels, 2 * channels, 3, groups=2)
        self.fc1, self.fc2 = conv(2, channels, 5), conv(2, 5, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        batch, rchannel = x.shape[:2]
        splits = torch.split(x, rchannel // 2, dim=1)
        gap = functional.adaptive_avg_pool2d(splits[0] + splits[1], 1)
        atten = self.fc2(functional.relu(self.fc1(gap)))
        atten = atten.view(batch, 1, 2, -1).transpose(1, 2).softmax(1).reshape(batch, -1, 1, 1)
        weights = torch.split(atten, rchannel // 2, dim=1)
        return sum(weight * split for weight, split in zip(weights, splits, strict=True))  # type: ignore[return-value]


class SelectiveKernel(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.branches = nn.ModuleList([conv(2, channels, channels, 3), conv(2, channels, channels)])
        self.squeeze = nn.Linear(channels, 5)
        self.fcs = nn.ModuleList([nn.Linear(5, channels), nn.Linear(5, channels)])

    def forward(self, x: Tensor) -> Tensor:
        features = torch.stack([branch(x) for branch in self.branches], dim=1)
        z = self.squeeze(features.sum(1).mean((-1, -2)))
        weights = torch.stack([fc(z) for fc in self.fcs], dim=1).softmax(1)
        return (features * weights[..., None, None]).sum(1)


class CoordinateAttention(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.rows, self.columns = nn.AdaptiveAvgPool2d((None, 1)), nn.AdaptiveAvgPool2d((1, None))
        self.mix, self.h, self.w = conv(2, channels, 4), conv(2, 4, channels), conv(2, 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        _, _, h, w = x.size()
        y = torch.cat([self.rows(x), self.columns(x).permute(0, 1, 3, 2)], dim=2)
        a, c = torch.split(functional.relu(self.mix(y)), [h, w], dim=2)
        return x * self.h(a).sigmoid() * self.w(c.permute(0, 1, 3, 2)).sigmoid()


class EfficientChannelAttention(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = x.mean((2, 3)).unsqueeze(1)
        return x * torch.sigmoid(self.conv(y)).squeeze(1)[..., None, None]


class WeightedFusion(Block):
    """BiFPN's: learned, normalised weights per input."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.conv, self.weights = conv(2, channels, channels, 3), nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        w = functional.relu(self.weights)
        w = w / (w.sum(dim=0) + 1e-4)
        return w[0] * x + w[1] * self.conv(x)


class PartialConv(Block):
    """FasterNet's: a convolution of the first quarter."""

    def __init__(self, channels: int, *, slicing: bool) -> None:
        super().__init__(channels)
        self.part, self.slicing = channels // 4, slicing
        self.conv = conv(2, self.part, self.part, 3)
        self.mix = conv(2, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        if self.slicing:
            x = x.clone()
            x[:, : self.part] = self.conv(x[:, : self.part].clone())
            return self.mix(x)
        x1, x2 = torch.split(x, [self.part, x.shape[1] - self.part], dim=1)
        return self.mix(torch.cat((self.conv(x1), x2), 1))


class GhostModule(Block):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__(out)
        self.primary = unit(channels, out // 2)
        self.cheap = unit(out // 2, out // 2, 3, groups=out // 2)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.primary(x)
        return torch.cat([x1, self.cheap(x1)], dim=1)[:, : self.out, :, :]


class GraphConv(Block):
    """ST-GCN's: rows are time, columns the nodes of a graph with three kinds of edges."""

    def __init__(self, channels: int, out: int, nodes: int) -> None:
        super().__init__(out)
        self.conv = conv(2, channels, 3 * out)
        self.edges = nn.Parameter(torch.rand(3, nodes, nodes))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        n, kc, t, v = x.size()
        return torch.einsum("nkctv,kvw->nctw", (x.view(n, 3, kc // 3, t, v), self.edges))


class SpatialTransformer(Block):
    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.locate = nn.Sequential(nn.Linear(channels, 5), nn.ReLU(), nn.Linear(5, 6))

    def forward(self, x: Tensor) -> Tensor:
        theta = self.locate(x.mean((2, 3))).view(-1, 2, 3)
        grid = functional.affine_grid(theta, list(x.size()), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


class Fused(Block):
    """HRNet's exchange: every scale gets the sum of all, in its own width."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.low = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.bodies = nn.ModuleList(
            [Residual(2, channels, [unit(channels, 5)], how="plain"), Bottleneck(6, 4)]
        )
        self.up, self.down = unit(6, channels), nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.back = unit(6, channels)

    def forward(self, x: Tensor) -> Tensor:
        high, low = self.bodies[0](x), self.bodies[1](self.low(x))
        high, low = (
            high + functional.interpolate(self.up(low), scale_factor=2, mode="nearest"),
            self.down(high) + low,
        )
        return functional.relu(high) + functional.interpolate(self.back(low), scale_factor=2)


def expectations(expected: Callable[..., Any]) -> dict[str, Any]:
    """What `tests.graph.test_blocks` is to find of each block."""
    width = "scales by the number of channels in a head"
    bottlenecks = {"m.0.cv1.conv": 5, "m.1.cv1.conv": 5}
    return {
        "C2f with chunk": expected(
            lambda: C2f(8, 6, 4, literal=False),
            {"stem": 8, "cv1.conv": 4, **bottlenecks, "cv2.conv": 6},
        ),
        "C2f with its width in an attribute": expected(
            lambda: C2f(8, 6, 4, literal=True),
            {"stem": 8, "cv1.conv": 4, **bottlenecks, "cv2.conv": 6},
        ),
        "C3": expected(
            lambda: C3(8, 6, 4),
            {"stem": 8, "cv1.conv": 4, "m.0.cv1.conv": 5, "cv2.conv": 4, "cv3.conv": 6},
        ),
        "SPPF": expected(lambda: SPPF(8, 6), {"stem": 8, "cv1.conv": 4, "cv2.conv": 6}),
        "PAN": expected(
            lambda: PAN(8),
            {
                **{"stem": 8, "p4.conv": 6, "p5.conv": 10, "lateral.conv": 6},
                **{"c4.cv1.conv": 3, "c4.m.0.cv1.conv": 5, "c4.cv2.conv": 3, "c4.cv3.conv": 6},
                **{"c3.cv1.conv": 4, "c3.m.0.cv1.conv": 5, "c3.cv2.conv": 4, "c3.cv3.conv": 8},
                **{"n4.cv1.conv": 3, "n4.m.0.cv1.conv": 5, "n4.m.1.cv1.conv": 5, "n4.cv2.conv": 6},
                **{"n5.cv1.conv": 3, "n5.m.0.cv1.conv": 5, "n5.m.1.cv1.conv": 5},
            },
        ),
        "ShuffleNet unit": expected(lambda: ShuffleUnit(8), {"stem": 4, "branch.0.conv": 4}),
        "ConvNeXt block": expected(lambda: ConvNeXtBlock(8), {"stem": 8, "up": 12}),
        **{
            f"attention: {how}": expected(partial(Attention, 8, how=how), {"stem": 2, "up": 10})
            for how in ("fused", "by hand", "module")
        },
        "attention: encoder layer": expected(
            lambda: Attention(8, how="encoder layer"),
            {"attend.linear1": 12, "up": 10},
            {"stem": width, "down": width, "attend.linear2": width}
            | {
                f"attend.self_attn.{name}": width
                for name in ("in_proj_weight", "in_proj_bias", "out_proj")
            },
        ),
        "split attention": expected(lambda: SplitAttention(8), {"stem": 4, "conv": 8, "fc1": 5}),
        "selective kernels": expected(
            lambda: SelectiveKernel(8), {"stem": 8, "branches.0": 8, "squeeze": 5}
        ),
        "coordinate attention": expected(lambda: CoordinateAttention(8), {"stem": 8, "mix": 4}),
        "efficient channel attention": expected(
            lambda: EfficientChannelAttention(8),
            {"stem": 8},
            {"conv": "a second channel dimension"},
        ),
        "weighted fusion": expected(lambda: WeightedFusion(8), {"stem": 8}),
        "partial convolution": expected(
            lambda: PartialConv(8, slicing=False),
            {"stem": 2, "stem#2": 6, "conv": 2, "mix": 8},
        ),
        "partial convolution by slicing": expected(
            lambda: PartialConv(8, slicing=True),
            {"stem": 2, "stem#2": 6, "mix": 8},
        ),
        "ghost module": expected(lambda: GhostModule(8, 12), {"stem": 8, "primary.conv": 6}),
        "graph convolution": expected(
            lambda: GraphConv(8, 6, 8),
            {"stem": 8, "conv": 6},
            {"edges": "a second channel dimension at einsum"},
        ),
        "spatial transformer": expected(
            lambda: SpatialTransformer(8), {"stem": 8, "locate.0": 5}, {"locate.2": "affine_grid"}
        ),
        "exchange of scales": expected(
            lambda: Fused(8),
            {"stem": 8, "low": 6, "bodies.0.bodies.0.body.0.conv": 5, "bodies.1.cv1.conv": 4},
            {"bodies.0.scale": "not used"},
        ),
    }
