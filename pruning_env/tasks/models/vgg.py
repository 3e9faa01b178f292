"""VGG (Simonyan & Zisserman 2015) with batch norm in its two CIFAR forms.

Usually the classifier is one linear layer, without the two 4,096-unit layers of the ImageNet form;
`hidden=4096` has them (the VGG-19 of RL-Pruner's tables, arXiv 2411.06463). The module names
(`features.0`, ..., `classifier`) are those of github.com/kuangliu/pytorch-cifar. Knows nothing of
data, training or pruning.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CifarVGG"]

# Columns A, D and E of table 1 of the paper; 0 stands for 2 x 2 max pooling.
_LAYERS: dict[int, tuple[int, ...]] = {
    11: (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0),
    16: (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0),
    19: (64, 64, 0, 128, 128, 0, *(256,) * 4, 0, *(512,) * 4, 0, *(512,) * 4, 0),
}


class CifarVGG(nn.Module):
    """VGG-`depth` with batch norm.

    Args:
        depth: 11, 16 or 19.
        in_channels: Channels of the image; its sides must be 32 pixels or more.
        num_classes: Outputs of the classifier.
        hidden: Units of each of two hidden layers before the classifier; 0 for no such layers.

    Raises:
        ValueError: There is no VGG of this depth here, or `hidden` is below 0.
    """

    def __init__(
        self, depth: int = 16, *, in_channels: int = 3, num_classes: int = 10, hidden: int = 0
    ) -> None:
        super().__init__()
        if hidden < 0:
            raise ValueError(f"hidden={hidden}: must be 0 or more.")
        if depth not in _LAYERS:
            raise ValueError(f"depth={depth}: must be one of {', '.join(map(str, _LAYERS))}.")
        layers: list[nn.Module] = []
        channels = in_channels
        for width in _LAYERS[depth]:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier: nn.Module = nn.Linear(hidden or channels, num_classes)
        if hidden:
            self.classifier = nn.Sequential(
                nn.Linear(channels, hidden),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(hidden, hidden),
                nn.ReLU(),
                nn.Dropout(),
                self.classifier,
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, num_classes) logits."""
        out = functional.adaptive_avg_pool2d(self.features(x), 1)
        return self.classifier(torch.flatten(out, 1))
