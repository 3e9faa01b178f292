"""Building blocks of convolutional networks, for the tests that trace them.

Every block maps `(N, channels, *space)` to `(N, block.out, *space)`. `n` is the number of spatial
dimensions. Forward passes are written the ways people write them: functional and as modules, with
sizes taken from shapes, with -1, in place and not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import StochasticDepth

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
LINEAR_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


def conv(n: int, into: int, out: int, kernel: int = 1, **options: Any) -> nn.Module:
    """A convolution that keeps the size of space."""
    return CONV[n](into, out, kernel, padding=kernel // 2, **options)


class Block(nn.Module):
    """A block; `out` is the number of its output channels."""

    def __init__(self, out: int) -> None:
        super().__init__()
        self.out = out

    def extra_repr(self) -> str:
        return str(getattr(self, "how", ""))


class Chain(Block):
    def __init__(self, *blocks: nn.Module, out: int) -> None:
        super().__init__(out)
        self.body = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


# Norms


class ChannelsFirstNorm(nn.Module):
    """A layer norm over dim 1, written out, as ConvNeXt's authors have it."""

    def __init__(self, n: int, channels: int) -> None:
        super().__init__()
        shape = (channels, *[1] * n)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        return self.weight * ((x - mean) / torch.sqrt(variance + 1e-6)) + self.bias


class FunctionalNorm(nn.Module):
    """A layer norm over the last dimension that is no nn.LayerNorm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.normalized_shape = (channels,)

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias)


class ChannelsLast(nn.Module):
    """Runs a module with the channels moved to the end."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.movedim(1, -1)).movedim(-1, 1)


class ResponseNorm(nn.Module):
    """ConvNeXt-V2's global response normalisation, channels last."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        response = torch.linalg.vector_norm(x, dim=tuple(range(1, x.dim() - 1)), keepdim=True)
        response = response / (response.mean(-1, keepdim=True) + 1e-6)
        return self.gamma * (x * response) + self.beta + x


NORMS: dict[str, Callable[[int, int], nn.Module]] = {
    "none": lambda n, c: nn.Identity(),
    "batch": lambda n, c: BATCH_NORM[n](c),
    "batch without weights": lambda n, c: BATCH_NORM[n](c, affine=False),
    "batch without statistics": lambda n, c: BATCH_NORM[n](c, track_running_stats=False),
    "instance": lambda n, c: INSTANCE_NORM[n](c),
    "instance with weights": lambda n, c: INSTANCE_NORM[n](c, affine=True),
    "group of one": lambda n, c: nn.GroupNorm(1, c),
    "group of two": lambda n, c: nn.GroupNorm(2 - c % 2, c),
    "group of each": lambda n, c: nn.GroupNorm(c, c),
    "group without weights": lambda n, c: nn.GroupNorm(c, c, affine=False),
    "layer": lambda n, c: ChannelsLast(nn.LayerNorm(c)),
    "layer without weights": lambda n, c: ChannelsLast(nn.LayerNorm(c, elementwise_affine=False)),
    "layer, functional": lambda n, c: ChannelsLast(FunctionalNorm(c)),
    "layer, channels first": ChannelsFirstNorm,
    "root mean square": lambda n, c: ChannelsLast(nn.RMSNorm(c)),
    "response": lambda n, c: ChannelsLast(ResponseNorm(c)),
}

ACTIVATIONS: dict[str, Callable[[int], nn.Module]] = {
    "relu": lambda c: nn.ReLU(),
    "relu in place": lambda c: nn.ReLU(inplace=True),
    "silu": lambda c: nn.SiLU(),
    "gelu": lambda c: nn.GELU(),
    "hardswish": lambda c: nn.Hardswish(),
    "prelu": nn.PReLU,
    "prelu of one": lambda c: nn.PReLU(),
    "dropout": lambda c: nn.Sequential(nn.Dropout(0.1), nn.LeakyReLU()),
}


class ConvUnit(Block):
    """Convolution, norm, activation."""

    def __init__(
        self,
        n: int,
        channels: int,
        out: int,
        *,
        kernel: int = 3,
        groups: int = 1,
        bias: bool = True,
        norm: str = "batch",
        activation: str = "relu",
    ) -> None:
        super().__init__(out)
        self.conv = conv(n, channels, out, kernel, groups=groups, bias=bias)
        self.norm = NORMS[norm](n, out)
        self.act = ACTIVATIONS[activation](out)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class TransposedUnit(Block):
    def __init__(self, n: int, channels: int, out: int, *, groups: int, bias: bool) -> None:
        super().__init__(out)
        self.conv = TRANSPOSED[n](channels, out, 3, padding=1, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.conv(x))


class FunctionalConv(Block):
    """Two convolutions whose weights the block itself holds."""

    def __init__(self, n: int, channels: int, out: int) -> None:
        super().__init__(out)
        self.first = nn.Parameter(torch.randn(channels, channels, *[3] * n) / channels)
        self.second = nn.Parameter(torch.randn(out, channels, *[1] * n) / channels)
        self.shift = nn.Parameter(torch.zeros(out))
        self.call = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[n]

    def forward(self, x: Tensor) -> Tensor:
        x = self.call(x, self.first, padding=1).relu_()
        return self.call(x, self.second, self.shift)


class FunctionalDepthwise(Block):
    """A depthwise convolution with a buffer, as blur pools have it; groups from the weight."""

    kernel: Tensor

    def __init__(self, n: int, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("kernel", torch.rand(channels, 1, *[3] * n), persistent=False)
        self.call = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[n]

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.kernel, padding=1, groups=x.shape[1])


class Contraction(Block):
    """A 1x1 convolution written as a matrix product."""

    def __init__(self, channels: int, out: int, *, how: str) -> None:
        super().__init__(out)
        self.how = how
        self.weight = nn.Parameter(torch.randn(out, channels) / channels)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        if self.how == "einsum":
            y = torch.einsum("ncl,oc->nol", flat, self.weight)
        elif self.how == "matmul":
            y = self.weight @ flat
        elif self.how == "matmul from the right":
            y = (flat.transpose(1, 2) @ self.weight.t()).transpose(1, 2)
        else:
            y = functional.linear(flat.mT, self.weight).mT
        return y.reshape(x.shape[0], -1, *x.shape[2:])


class UnfoldedConv(Block):
    """A 3x3 convolution as unfold and a linear layer (2-D)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(out)
        self.mix = nn.Linear(channels * 9, out)

    def forward(self, x: Tensor) -> Tensor:
        columns = functional.unfold(x, 3, padding=1).transpose(1, 2)
        return self.mix(columns).transpose(1, 2).unflatten(2, x.shape[2:])


class Tied(Block):
    """Down and up again with one matrix."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.weight = nn.Parameter(torch.randn(hidden, channels) / channels)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.linear(x.movedim(1, -1), self.weight).relu()
        return functional.linear(y, self.weight.t()).movedim(-1, 1)


# Sums


class Residual(Block):
    """`x` and what one or two blocks make of it, added up in one of many ways."""

    def __init__(self, n: int, channels: int, bodies: Sequence[Block], *, how: str) -> None:
        super().__init__(channels)
        self.how = how
        self.bodies = nn.ModuleList(
            Chain(body, conv(n, body.out, channels), out=channels) for body in bodies
        )
        self.scale = nn.Parameter(torch.full((channels, *[1] * n), 0.5))
        self.alpha = nn.Parameter(torch.tensor(0.7))
        self.drop = StochasticDepth(0.2, "row")

    @property
    def ignored(self) -> list[nn.Module]:
        """Branches that are computed and not used."""
        one = self.how in ("layer scale", "in place", "maximum", "where", "addcmul")
        return list(self.bodies)[1:] if one else []

    def forward(self, x: Tensor) -> Tensor:
        parts = [body(x) for body in self.bodies]
        first = parts[0]
        if self.how == "scaled":
            return x + self.alpha * sum(parts) * 0.3
        if self.how == "layer scale":
            return x + self.drop(self.scale * first)
        if self.how == "in place":
            first += x
            return first
        if self.how == "stack":
            return torch.stack([x, *parts]).sum(0)
        if self.how == "mean of stack":
            return torch.stack([x, *parts], dim=2).mean(2)
        if self.how == "maximum":
            return torch.maximum(x, first)
        if self.how == "where":
            return torch.where(first > 0, x, -first).masked_fill(x > 3, 0.5)
        if self.how == "addcmul":
            return torch.addcmul(x, first, self.scale)
        if self.how == "lerp":
            return torch.lerp(x, first, 0.3) - parts[-1]
        return sum(parts, x)


RESIDUALS = (
    *("plain", "scaled", "layer scale", "in place", "stack", "mean of stack", "maximum", "where"),
    *("addcmul", "lerp"),
)


class Gated(Block):
    """A product of two branches, one of them squashed."""

    def __init__(self, n: int, channels: int, out: int) -> None:
        super().__init__(out)
        self.both = conv(n, channels, 2 * out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.glu(self.both(x), dim=1)


# Side by side


class Parallel(Block):
    """Branches concatenated; with `dense`, the input too."""

    def __init__(self, channels: int, branches: Sequence[Block], *, dense: bool) -> None:
        super().__init__(sum(b.out for b in branches) + (channels if dense else 0))
        self.branches, self.dense = nn.ModuleList(branches), dense

    def forward(self, x: Tensor) -> Tensor:
        parts = [x] if self.dense else []
        return torch.cat([*parts, *(branch(x) for branch in self.branches)], 1)


class Halves(Block):
    """One half goes through a block and comes back; `how` says how it is cut off."""

    def __init__(self, n: int, channels: int, body: Block, *, how: str) -> None:
        super().__init__(channels)
        self.how, self.width = how, channels // 2
        self.body = Chain(body, conv(n, body.out, channels // 2), out=channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "chunk":
            a, b = x.chunk(2, dim=1)
        elif self.how == "split":
            a, b = x.split(x.shape[1] // 2, 1)
        elif self.how == "slice":
            half = x.size(1) // 2
            a, b = x[:, :half], x[:, half:]
        elif self.how == "unbind":
            a, b = x.view(x.shape[0], 2, x.shape[1] // 2, *x.shape[2:]).unbind(1)
        elif self.how == "attribute":
            a, b = x.split((self.width, self.width), 1)
        else:  # parts of different size
            a, b = x[:, : self.width - 1], x[:, self.width - 1 :]
            return torch.cat([a, b * self.body(x[:, : self.width]).mean()], 1)
        return torch.cat([self.body(b), a], 1)


HALVES = ("chunk", "split", "slice", "unbind", "attribute", "uneven")


class JoinAndSplit(Block):
    """Concatenates two blocks, normalises the whole, takes it apart again and adds the parts."""

    def __init__(self, n: int, first: Block, second: Block) -> None:
        super().__init__(first.out)
        self.first, self.second = (
            first,
            Chain(second, conv(n, second.out, first.out), out=first.out),
        )
        self.norm = BATCH_NORM[n](2 * first.out)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.norm(torch.cat([self.first(x), self.second(x)], 1)).chunk(2, 1)
        return a - b


class Shuffle(Block):
    def __init__(self, channels: int, groups: int, *, how: str) -> None:
        super().__init__(channels)
        self.groups, self.how = groups, how
        self.shuffle = nn.ChannelShuffle(groups)

    def forward(self, x: Tensor) -> Tensor:
        size, channels, *space = x.shape
        if self.how == "module":
            return self.shuffle(x)
        if self.how == "view":
            x = x.view(size, self.groups, channels // self.groups, *space)
            return x.transpose(1, 2).contiguous().view(size, -1, *space)
        if self.how == "rest first":  # the number in the code is the inner factor
            x = x.view(size, channels // self.groups, self.groups, *space)
            return x.transpose(1, 2).reshape(size, channels, *space)
        x = x.unflatten(1, (self.groups, -1))
        return x.swapaxes(1, 2).flatten(1, 2)


SHUFFLES = ("module", "view", "rest first", "unflatten")


class Maxout(Block):
    def __init__(self, n: int, channels: int, out: int, pieces: int, *, how: str) -> None:
        super().__init__(out)
        self.conv, self.pieces, self.how = conv(n, channels, out * pieces), pieces, how

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.how == "inner":
            x = x.view(x.shape[0], x.shape[1] // self.pieces, self.pieces, *x.shape[2:])
            return x.amax(2)
        if self.how == "outer":
            x = x.view(x.shape[0], self.pieces, x.shape[1] // self.pieces, *x.shape[2:])
            return x.max(1)[0]
        return x.view(x.shape[0], -1, self.pieces, *x.shape[2:]).mean(2)


class Repeated(Block):
    def __init__(self, channels: int, *, how: str) -> None:
        super().__init__(2 * channels)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "repeat":
            return x.repeat(1, 2, *[1] * (x.dim() - 2))
        if self.how == "interleave":
            return x.repeat_interleave(2, 1)
        return torch.cat(
            [x, x.flip(1)], 1
        )  # both halves see a channel: mirrored pairs hang together


# Gates


class SqueezeExcite(Block):
    def __init__(self, n: int, channels: int, hidden: int, *, how: str) -> None:
        super().__init__(channels)
        self.how = how
        if how == "linear":
            self.down: nn.Module = nn.Linear(channels, hidden)
            self.up: nn.Module = nn.Linear(hidden, channels)
        else:
            self.down, self.up = conv(n, channels, hidden), conv(n, hidden, channels)
        self.pool = POOL[n](1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "linear":
            gate = self.pool(x).view(x.shape[0], -1)
            gate = torch.sigmoid(self.up(functional.relu(self.down(gate))))
            return x * gate.view(*gate.shape, *[1] * (x.dim() - 2)).expand_as(x)
        gate = (
            x.mean(tuple(range(2, x.dim())), keepdim=True) if self.how == "mean" else self.pool(x)
        )
        return x * functional.hardsigmoid(self.up(functional.silu(self.down(gate))))


class SpatialGate(nn.Module):
    """CBAM's second gate: one value per place, from statistics over channels."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv = conv(n, 2, 1, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mean, (largest, _) = x.mean(1, keepdim=True), x.max(1, keepdim=True)
        return torch.sigmoid(self.conv(torch.cat([mean, largest], 1)))


class CBAM(Block):
    def __init__(self, n: int, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.mlp = nn.Sequential(conv(n, channels, hidden), nn.ReLU(), conv(n, hidden, channels))
        self.spatial = SpatialGate(n)

    def forward(self, x: Tensor) -> Tensor:
        space = tuple(range(2, x.dim()))
        x = x * torch.sigmoid(
            self.mlp(x.mean(space, keepdim=True)) + self.mlp(x.amax(space, keepdim=True))
        )
        return x * self.spatial(x)


class Centred(Block):
    """Subtracts the mean over channels between two convolutions, in one forward."""

    def __init__(self, n: int, channels: int, out: int) -> None:
        super().__init__(out)
        self.first, self.second = conv(n, channels, out, 3), conv(n, out, out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.second((x - x.mean(1, keepdim=True)).relu())


class SelfAttention(Block):
    """SAGAN's: every place looks at every other."""

    def __init__(self, n: int, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.query, self.key = conv(n, channels, hidden), conv(n, channels, hidden)
        self.value, self.gamma = conv(n, channels, channels), nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        query, key = self.query(x).flatten(2), self.key(x).flatten(2)
        weights = torch.softmax(query.transpose(1, 2) @ key, -1)
        mixed = torch.bmm(self.value(x).flatten(2), weights.transpose(1, 2))
        return self.gamma * mixed.view_as(x) + x


# Space


class Scales(Block):
    """Down, a block, up again, and the skip concatenated: a U-Net's step."""

    def __init__(self, n: int, channels: int, body: Block, *, how: str) -> None:
        super().__init__(channels + body.out)
        self.n, self.how, self.body = n, how, body
        self.down = MAX_POOL[n](2)
        if how == "transposed":
            self.up: nn.Module = TRANSPOSED[n](body.out, body.out, 2, stride=2)
        elif how == "upsample":
            self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(self.down(x))
        if self.how == "interpolate":
            y = functional.interpolate(
                y, size=x.shape[2:], mode=LINEAR_MODE[self.n], align_corners=False
            )
        else:
            y = self.up(y)
        return torch.cat([x, y], 1)


class PixelShuffled(Block):
    """Space into channels, a convolution, and back (2-D)."""

    def __init__(self, channels: int, out: int, *, written_out: bool) -> None:
        super().__init__(out)
        self.written_out = written_out
        self.conv = nn.Conv2d(4 * channels, 4 * out, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.written_out:
            return functional.pixel_shuffle(self.conv(functional.pixel_unshuffle(x, 2)), 2)
        n, c, h, w = x.shape
        x = x.view(n, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4)
        x = self.conv(x.reshape(n, c * 4, h // 2, w // 2))
        x = x.view(n, x.shape[1] // 4, 2, 2, h // 2, w // 2).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(n, -1, h, w)


class Focus(Block):
    """Four shifted grids side by side, and up again (2-D)."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(out)
        self.conv = nn.Conv2d(4 * channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        grids = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return functional.interpolate(self.conv(torch.cat(grids, 1)), scale_factor=2)


class Padded(Block):
    """Pads space by hand in front of a convolution that does not."""

    def __init__(self, n: int, channels: int, out: int, *, mode: str) -> None:
        super().__init__(out)
        self.conv, self.mode = CONV[n](channels, out, 3), mode

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.pad(x, [1, 1] * (x.dim() - 2), mode=self.mode))


class Moved(Block):
    """Places moved around; channels stay."""

    def __init__(self, channels: int, *, how: str) -> None:
        super().__init__(channels)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "roll":
            return torch.roll(x, 1, dims=-1)
        if self.how == "flip":
            return x.flip(-1)
        if self.how == "index":
            return x[..., torch.arange(x.shape[-1] - 1, -1, -1)]
        if self.how == "sort":
            return x.sort(-1)[0]
        if self.how == "write":
            x = x.clone()
            x[..., 0] = 0.5
            x[:, :, 1:].mul_(2)
            return x
        if self.how == "softmax":
            return x.flatten(2).softmax(-1).view(x.shape)
        return x / functional.normalize(x.flatten(2), dim=2).abs().mean(2).add(1).view(
            *x.shape[:2], *[1] * (x.dim() - 2)
        )


MOVES = ("roll", "flip", "index", "sort", "write", "softmax", "normalise")


# Shortcuts that add channels


class ZeroPadded(nn.Module):
    def __init__(self, n: int, before: int, after: int) -> None:
        super().__init__()
        self.amounts = [*[0] * (2 * n), before, after]

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.amounts)


class OptionA(Block):
    """A residual block whose shortcut pads channels with zeros."""

    def __init__(self, n: int, channels: int, body: Block, *, more: int, module: bool) -> None:
        super().__init__(channels + more)
        self.body = Chain(body, conv(n, body.out, self.out), out=self.out)
        before = more // 2
        self.amounts = [*[0] * (2 * n), before, more - before]
        self.shortcut = ZeroPadded(n, before, more - before) if module else nn.Identity()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return y + (self.shortcut(x) if self.module else functional.pad(x, self.amounts))


# Sharing, tokens, parameters


class Twice(Block):
    """One module called two times."""

    def __init__(self, n: int, channels: int, body: Block) -> None:
        super().__init__(channels)
        self.body = Chain(body, conv(n, body.out, channels), out=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(self.body(x).relu())


class TwoNames(Block):
    """Two modules with one weight, and one module under two names."""

    def __init__(self, n: int, channels: int) -> None:
        super().__init__(channels)
        self.first, self.second = (conv(n, channels, channels, 3) for _ in range(2))
        self.second.weight = self.first.weight
        self.norm = NORMS["layer"](n, channels)
        self.again = self.norm

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.second(self.norm(self.first(x))))


class TokenMLP(Block):
    """Swin's and ConvNeXt's MLP: channels last, hidden width, residual."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__(channels)
        self.norm = nn.LayerNorm(channels)
        self.up, self.down = nn.Linear(channels, hidden), nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.down(functional.gelu(self.up(self.norm(tokens))))
        return tokens.transpose(1, 2).view(x.shape)


class Placed(Block):
    """Parameters and buffers with a value per channel, per place, or both."""

    table: Tensor

    def __init__(self, channels: int, space: Sequence[int]) -> None:
        super().__init__(channels)
        ones = [1] * len(space)
        self.position = nn.Parameter(torch.randn(1, channels, *space))
        self.gain = nn.Parameter(torch.rand(channels))
        self.mask = nn.Parameter(torch.rand(*space))
        self.register_buffer("table", torch.rand(1, channels, *ones))

    def forward(self, x: Tensor) -> Tensor:
        gain = self.gain.view(-1, *[1] * (x.dim() - 2)).to(x.dtype)
        return (x + self.position) * gain[None] * self.table * self.mask


class Undifferentiated(Block):
    """Part of it runs without gradients."""

    def __init__(self, n: int, channels: int, out: int) -> None:
        super().__init__(out)
        self.fixed, self.conv = conv(n, channels, channels, 3), conv(n, channels, out)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.fixed(x).relu()
        return self.conv(y + x)
