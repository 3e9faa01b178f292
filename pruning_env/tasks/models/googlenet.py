"""GoogLeNet (Szegedy et al. 2015) with batch norm in its usual form for 32 x 32 images.

The stem is three 3 x 3 convolutions at full resolution, the 5 x 5 branch of every inception module
is two 3 x 3 convolutions, and there are no auxiliary classifiers: the network of the pruning
literature on CIFAR (RL-Pruner, arXiv 2411.06463). Knows nothing of data, training or pruning.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["CifarGoogLeNet"]

# Per module: 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection (table 1 of the paper). None
# stands for a 3 x 3 max pooling of stride 2.
_MODULES: tuple[tuple[int, int, int, int, int, int] | None, ...] = (
    None,
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    None,
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    None,
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution at unchanged resolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Inception(nn.Module):
    """Four branches side by side, their outputs concatenated."""

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, reduce3, three, reduce5, five, pooled = widths
        self.branch1 = _convolution(inputs, one, 1)
        self.branch3 = nn.Sequential(
            _convolution(inputs, reduce3, 1), _convolution(reduce3, three, 3)
        )
        self.branch5 = nn.Sequential(
            _convolution(inputs, reduce5, 1),
            _convolution(reduce5, five, 3),
            _convolution(five, five, 3),
        )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), _convolution(inputs, pooled, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, inputs, H, W) -> (N, one + three + five + pooled, H, W)."""
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        return torch.cat([branch(x) for branch in branches], dim=1)


class CifarGoogLeNet(nn.Module):
    """GoogLeNet for small images.

    Args:
        in_channels: Channels of the image.
        num_classes: Outputs of the classifier.
        dropout: Share of the pooled features that training drops.
    """

    def __init__(
        self, *, in_channels: int = 3, num_classes: int = 10, dropout: float = 0.4
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(in_channels, 64, 3), _convolution(64, 64, 3), _convolution(64, 192, 3)
        )
        layers: list[nn.Module] = []
        channels = 192
        for widths in _MODULES:
            if widths is None:
                layers.append(nn.MaxPool2d(3, stride=2, padding=1))
                continue
            layers.append(Inception(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        pooled = self.features(self.stem(x)).mean((2, 3))
        return self.classifier(self.dropout(pooled))
