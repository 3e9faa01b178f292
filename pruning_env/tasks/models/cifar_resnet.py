"""The small residual networks of He et al. 2016 (section 4.2): 6n + 2 layers in three stages.

The module names (`conv1`, `bn1`, `layer1.0.conv1`, ..., `linear`) are those of the widely used
CIFAR-10 checkpoints of github.com/akamaster/pytorch_resnet_cifar10, so that these load. Knows
nothing of data, training or pruning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CifarResNet", "PadShortcut"]


class PadShortcut(nn.Module):
    """Option A shortcut: every `stride`-th pixel, then zero channels on both sides; no parameters.

    A module of its own, without parameters, so that pruning can run it at the width it was built
    for (`pruning_env.graph.surgery.FullWidth`) and every channel around it stays removable.

    Attributes:
        stride: Step between the pixels that are kept.
        before: Zero channels put before the input's channels.
        after: Zero channels put behind them.
    """

    def __init__(self, before: int, after: int, stride: int = 2) -> None:
        super().__init__()
        self.before = before
        self.after = after
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, before + C + after, ceil(H / stride), ceil(W / stride))."""
        pixels = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(pixels, (0, 0, 0, 0, self.before, self.after))

    def extra_repr(self) -> str:
        """The widths, for `print(module)`."""
        return f"before={self.before}, after={self.after}, stride={self.stride}"


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, in_planes: int, planes: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_planes != planes:
            if shortcut == "A":
                before = (planes - in_planes) // 2
                self.shortcut = PadShortcut(before, planes - in_planes - before, stride)
            else:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False),
                    nn.BatchNorm2d(planes),
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_planes, H, W) -> (N, planes, H / stride, W / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet-`depth` for small images: three stages, the second and third at half resolution each.

    Args:
        depth: 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, 110, ...).
        widths: Channels of the three stages.
        in_channels: Channels of the image.
        num_classes: Outputs of the classifier.
        shortcut: Where the shape changes: "A", subsample and pad with zero channels (no
            parameters), or "B", 1 x 1 convolution.

    Raises:
        ValueError: An argument is outside what is said above.
    """

    def __init__(
        self,
        depth: int = 20,
        *,
        widths: Sequence[int] = (16, 32, 64),
        in_channels: int = 3,
        num_classes: int = 10,
        shortcut: str = "A",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"depth={depth}: must be 6n + 2 with n >= 1 (8, 14, 20, 32, 44, 56, ...)."
            )
        if len(widths) != 3 or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)}: must be three positive numbers of channels.")
        if shortcut not in ("A", "B"):
            raise ValueError(
                f"shortcut={shortcut!r}: must be 'A' (zero padding) or 'B' (1 x 1 conv)."
            )
        if shortcut == "A" and list(widths) != sorted(widths):
            raise ValueError(
                f"widths={tuple(widths)}: option A pads channels, so widths must not shrink; "
                "use shortcut='B'."
            )
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.layer1 = _stage(widths[0], widths[0], blocks, 1, shortcut)
        self.layer2 = _stage(widths[0], widths[1], blocks, 2, shortcut)
        self.layer3 = _stage(widths[1], widths[2], blocks, 2, shortcut)
        self.linear = nn.Linear(widths[2], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = torch.flatten(functional.adaptive_avg_pool2d(out, 1), 1)
        return self.linear(out)


def _stage(in_planes: int, planes: int, blocks: int, stride: int, shortcut: str) -> nn.Sequential:
    """`blocks` blocks, the first of which changes the shape."""
    first = BasicBlock(in_planes, planes, stride, shortcut)
    rest = [BasicBlock(planes, planes, 1, shortcut) for _ in range(blocks - 1)]
    return nn.Sequential(first, *rest)
