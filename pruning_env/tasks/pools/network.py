"""The network that a specification describes: each time the same modules and initial weights.

Knows nothing of data, training or pruning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pruning_env.tasks.models.cifar_resnet import PadShortcut
from pruning_env.tasks.pools.specification import Specification

__all__ = ["CLASSES", "INPUT_SHAPE", "PoolNetwork", "build"]

INPUT_SHAPE = (1, 8, 8)
CLASSES = 10

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": lambda: nn.LeakyReLU(0.1),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
}
_NORMS: dict[str, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "group": lambda width: nn.GroupNorm(2, width),
}
_BRANCHES = 4
_SQUEEZE = 4  # channels for each unit of a gate


class _Conv(nn.Sequential):
    """Convolution and norm, with an activation unless `linear`."""

    def __init__(
        self,
        spec: Specification,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        *,
        linear: bool = False,
        depthwise: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            groups=inputs if depthwise else 1,
            bias=False,
        )
        self.norm = _NORMS[spec.norm](outputs)
        if not linear:
            self.act = _ACTIVATIONS[spec.activation]()


class _Residual(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(
        self, spec: Specification, inputs: int, outputs: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        self.first = _Conv(spec, inputs, outputs, kernel, stride)
        self.second = _Conv(spec, outputs, outputs, kernel, linear=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            if spec.family == "residual-a":
                before = (outputs - inputs) // 2
                self.shortcut = PadShortcut(before, outputs - inputs - before, stride)
            else:
                self.shortcut = _Conv(spec, inputs, outputs, stride=stride, linear=True)
        self.act = _ACTIVATIONS[spec.activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.second(self.first(x)) + self.shortcut(x))


class _Gate(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        units = max(2, channels // _SQUEEZE)
        self.squeeze = nn.Conv2d(channels, units, 1)
        self.excite = nn.Conv2d(units, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.excite(pooled))


class _InvertedResidual(nn.Module):
    """Wider inside, depthwise, gated; a shortcut where the shape stays."""

    def __init__(
        self, spec: Specification, inputs: int, outputs: int, kernel: int, stride: int
    ) -> None:
        super().__init__()
        inside = spec.expansion * inputs
        self.expand = _Conv(spec, inputs, inside)
        self.depthwise = _Conv(spec, inside, inside, kernel, stride, depthwise=True)
        self.gate = _Gate(inside)
        self.project = _Conv(spec, inside, outputs, linear=True)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.project(self.gate(self.depthwise(self.expand(x))))
        return x + out if self.residual else out


class _DenseLayer(nn.Module):
    """A bottleneck whose outputs are put beside its inputs."""

    def __init__(self, spec: Specification, inputs: int, growth: int, kernel: int) -> None:
        super().__init__()
        self.bottleneck = _Conv(spec, inputs, spec.expansion * growth)
        self.grow = _Conv(spec, spec.expansion * growth, growth, kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.grow(self.bottleneck(x))], 1)


class _Inception(nn.Module):
    """Four branches side by side: 1 x 1, one convolution, two convolutions, a pool."""

    def __init__(self, spec: Specification, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        width = outputs // _BRANCHES
        width += width % 2
        self.point = _Conv(spec, inputs, width)
        self.once = nn.Sequential(_Conv(spec, inputs, width), _Conv(spec, width, width, kernel))
        self.twice = nn.Sequential(
            _Conv(spec, inputs, width),
            _Conv(spec, width, width, 3),
            _Conv(spec, width, width, 3),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), _Conv(spec, inputs, width))
        self.outputs = _BRANCHES * width

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.point(x), self.once(x), self.twice(x), self.pooled(x)], 1)


class PoolNetwork(nn.Module):
    """A stem, stages of blocks at half the resolution each, the mean over space, a classifier."""

    def __init__(self, spec: Specification) -> None:
        super().__init__()
        channels = spec.widths[0] * (2 if spec.family == "dense" else 1)
        self.stem = _Conv(spec, INPUT_SHAPE[0], channels, spec.stem_kernel)
        stages: list[nn.Module] = []
        for place, stage in enumerate(zip(spec.widths, spec.blocks, spec.kernels, strict=True)):
            layers, channels = _stage(spec, channels, *stage, stride=1 if place == 0 else 2)
            stages.append(nn.Sequential(*layers))
        self.stages = nn.Sequential(*stages)
        self.hidden: nn.Module = nn.Identity()
        if spec.hidden:
            self.hidden = nn.Sequential(
                nn.Linear(channels, spec.hidden), _ACTIVATIONS[spec.activation]()
            )
        self.classifier = nn.Linear(spec.hidden or channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 1, 8, 8) -> (N, 10) logits."""
        return self.classifier(self.hidden(self.stages(self.stem(x)).mean((2, 3))))


def _stage(
    spec: Specification, channels: int, width: int, blocks: int, kernel: int, stride: int
) -> tuple[list[nn.Module], int]:
    """The modules of a stage, and the channels that come out of it."""
    layers: list[nn.Module] = []
    if spec.family in ("dense", "inception"):
        if stride == 2:
            layers.append(_Conv(spec, channels, channels // 4 * 2))
            channels = channels // 4 * 2
            layers.append(nn.AvgPool2d(2))
        for _ in range(blocks):
            if spec.family == "dense":
                layers.append(_DenseLayer(spec, channels, width, kernel))
                channels += width
            else:
                block = _Inception(spec, channels, width, kernel)
                layers.append(block)
                channels = block.outputs
        return layers, channels
    for place in range(blocks):
        step = stride if place == 0 else 1
        if spec.family == "plain":
            layers.append(_Conv(spec, channels, width, kernel, step))
        elif spec.family == "inverted-residual":
            layers.append(_InvertedResidual(spec, channels, width, kernel, step))
        else:
            layers.append(_Residual(spec, channels, width, kernel, step))
        channels = width
    return layers, channels


def build(spec: Specification) -> PoolNetwork:
    """The network, untrained, its weights drawn from `spec.seed`; no global generator moves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        return PoolNetwork(spec)
