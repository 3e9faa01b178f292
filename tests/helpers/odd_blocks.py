"""Building blocks that were made to break a tracer: they decide, keep, draw, or train otherwise.

As in `tests.helpers.blocks`, every block maps `(N, channels, *space)` to `(N, block.out, *space)`.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from tests.helpers.blocks import Block, conv


class Deciding(Block):
    """A convolution, and a branch on numbers of channels."""

    decides = True

    def __init__(self, n: int, channels: int, out: int, how: str, bound: int) -> None:
        super().__init__(out)
        self.conv, self.proj = conv(n, channels, out), conv(n, channels, out)
        self.how, self.bound = how, bound

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how == "project unless alike":
            return y + (x if x.shape == y.shape else self.proj(x))
        if self.how == "attributes":
            alike = self.conv.in_channels == self.conv.out_channels
            return y + (x if alike and x.shape == y.shape else self.proj(x))
        if self.how == "at least":
            return y * 2 if y.shape[1] >= self.bound else y
        if self.how == "input at least":
            return y * 2 if x.size(1) >= self.bound else y
        if self.how == "even":
            return y * 2 if y.shape[1] % 2 == 0 else y
        if self.how == "at most":
            return y * min(y.shape[1], self.bound)
        return y * x.shape[1] ** -0.5


DECISIONS = (
    *("project unless alike", "attributes", "at least", "input at least", "even", "at most"),
    "root",
)


class Keeping(Block):
    """A value per channel that is computed once, kept, and used again."""

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.how = how
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.kept: dict[str, Tensor] = {}
        self.last: Tensor | None = None
        self.of_dtype = functools.lru_cache(maxsize=4)(self._softened)

    def _softened(self, dtype: torch.dtype) -> Tensor:
        return self.scale.to(dtype).sigmoid()

    def train(self, mode: bool = True) -> Keeping:
        self.kept, self.last = {}, None
        self.of_dtype.cache_clear()
        return super().train(mode)

    def _value(self, dtype: torch.dtype) -> Tensor:
        if self.training:
            return self._softened(dtype)
        if self.how == "dict":
            if str(dtype) not in self.kept:
                self.kept[str(dtype)] = self._softened(dtype)
            return self.kept[str(dtype)]
        if self.how == "attribute":
            if self.last is None:
                self.last = self._softened(dtype)
            return self.last
        return self.of_dtype(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x * self._value(x.dtype).view(1, -1, *[1] * (x.dim() - 2))


KEEPERS = ("dict", "attribute", "lru_cache")


class Bounded(nn.Module):
    """A parametrization."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.tanh()


class Parametrized(Block):
    """A convolution whose weight is computed."""

    def __init__(self, n: int, channels: int, out: int, how: str) -> None:
        super().__init__(out)
        self.how, self.conv = how, conv(n, channels, out)
        if how == "weight norm":
            parametrizations.weight_norm(self.conv)
        elif how == "spectral norm":
            parametrizations.spectral_norm(self.conv)
        else:
            parametrize.register_parametrization(self.conv, "weight", Bounded())

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


PARAMETRIZATIONS = ("weight norm", "spectral norm", "bounded")


class Drawing(Block):
    """Random numbers that are as many at any width, in eval mode too, and a factor of the width."""

    def __init__(self, n: int, channels: int, out: int, how: str) -> None:
        super().__init__(out)
        self.how, self.conv = how, conv(n, channels, out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.how.startswith("scaled"):
            y = y * y.shape[1] ** -0.5
        ones = [1] * (y.dim() - 1)
        if self.how.endswith("image"):
            return y * (0.5 + torch.rand(len(y), *ones).to(y))
        return y + torch.randn(()).to(y)


DRAWS = ("image", "number", "scaled image", "scaled number")


class TrainOnly(Block):
    """Something of a written-out width that only train mode adds."""

    offset: Tensor

    def __init__(self, channels: int, how: str) -> None:
        super().__init__(channels)
        self.how = how
        self.register_buffer("offset", torch.rand(channels), persistent=False)
        self.value = nn.Parameter(torch.rand(channels)) if how == "parameter" else None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        shape = (1, self.out, *[1] * (x.dim() - 2))
        if self.how == "draw":
            return x + torch.rand(shape).to(x)
        value = self.offset if self.value is None else self.value
        return x + value.view(shape if self.how == "literal" else (1, -1, *shape[2:]))


TRAIN_ONLY = ("draw", "buffer", "literal", "parameter")
