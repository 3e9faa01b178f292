"""MobileNetV3-Large (Howard et al. 2019) as the pruning literature on CIFAR has it.

It differs from torchvision's: every block has a shortcut (with a depthwise convolution where the
resolution halves), the squeeze layers have batch norm and no bias, and so has the hidden layer of
the head. It keeps the stride of 2 in its stem, so 32 x 32 images end at 1 x 1: this is the network
of RL-Pruner's tables (arXiv 2411.06463), whose low accuracy has that cause. Knows nothing of data,
training or pruning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

__all__ = ["CifarMobileNetV3"]


class _Row(NamedTuple):
    """A block of table 1 of the paper."""

    kernel: int
    expanded: int
    outputs: int
    squeeze: bool
    swish: bool
    stride: int


_LARGE = (
    _Row(3, 16, 16, False, False, 1),
    _Row(3, 64, 24, False, False, 2),
    _Row(3, 72, 24, False, False, 1),
    _Row(5, 72, 40, True, False, 2),
    _Row(5, 120, 40, True, False, 1),
    _Row(5, 120, 40, True, False, 1),
    _Row(3, 240, 80, False, True, 2),
    _Row(3, 200, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 184, 80, False, True, 1),
    _Row(3, 480, 112, True, True, 1),
    _Row(3, 672, 112, True, True, 1),
    _Row(5, 672, 160, True, True, 2),
    _Row(5, 672, 160, True, True, 1),
    _Row(5, 960, 160, True, True, 1),
)


def _convolution(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False
) -> list[nn.Module]:
    """A convolution and its batch norm."""
    groups = inputs if depthwise else 1
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]


class SqueezeExcitation(nn.Module):
    """A gate per channel, from the channels' means; squeezed to a quarter in between."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = max(channels // 4, 8)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            *_convolution(channels, squeezed),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1, bias=False),
            nn.Hardsigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, channels, H, W), unchanged in shape."""
        return x * self.gate(x)


class Block(nn.Module):
    """Expand, filter each channel by itself, squeeze-excite, project; add the shortcut."""

    def __init__(self, inputs: int, row: _Row) -> None:
        super().__init__()
        activation = nn.Hardswish if row.swish else nn.ReLU
        self.body = nn.Sequential(
            *_convolution(inputs, row.expanded),
            activation(inplace=True),
            *_convolution(row.expanded, row.expanded, row.kernel, row.stride, depthwise=True),
            activation(inplace=True),
            SqueezeExcitation(row.expanded) if row.squeeze else nn.Identity(),
            *_convolution(row.expanded, row.outputs),
        )
        self.activation = activation(inplace=True)
        shortcut: list[nn.Module] = []
        if row.stride == 2:
            shortcut += _convolution(inputs, inputs, 3, 2, depthwise=True)
        if inputs != row.outputs:
            # Behind a depthwise convolution the projection has a bias, as in the tables' network.
            projection = nn.Conv2d(inputs, row.outputs, 1, bias=row.stride == 2)
            shortcut += [projection, nn.BatchNorm2d(row.outputs)]
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride)."""
        return self.activation(self.body(x) + self.shortcut(x))


class CifarMobileNetV3(nn.Module):
    """MobileNetV3-Large, see the module.

    Args:
        in_channels: Channels of the image.
        num_classes: Outputs of the classifier.
        dropout: Share of the hidden layer that training drops.
    """

    def __init__(
        self, *, in_channels: int = 3, num_classes: int = 10, dropout: float = 0.2
    ) -> None:
        super().__init__()
        blocks = []
        channels = 16
        for row in _LARGE:
            blocks.append(Block(channels, row))
            channels = row.outputs
        self.stem = nn.Sequential(*_convolution(in_channels, 16, 3, 2), nn.Hardswish(inplace=True))
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(*_convolution(channels, 960), nn.Hardswish(inplace=True))
        self.hidden = nn.Sequential(
            nn.Linear(960, 1280, bias=False),
            nn.BatchNorm1d(1280),
            nn.Hardswish(inplace=True),
            nn.Dropout(dropout),
        )
        self.classifier = nn.Linear(1280, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        pooled = self.last(self.blocks(self.stem(x))).mean((2, 3))
        return self.classifier(self.hidden(pooled))
