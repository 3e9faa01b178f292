"""LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, the usual modern form, for 28 x 28 images.

Two convolutions whose flattened output feeds three linear layers: the small case in which one
channel of a convolution is a whole block of columns of a linear layer. Knows nothing of data,
training or pruning.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["LeNet5"]


class LeNet5(nn.Module):
    """LeNet-5.

    Args:
        widths: Channels of the two convolutions and units of the two hidden linear layers.
        in_channels: Channels of the image.
        num_classes: Outputs of the last layer.
        image_size: Height and width of the image in pixels, a multiple of 4 from 16 on.

    Raises:
        ValueError: An argument is outside what is said above.
    """

    def __init__(
        self,
        *,
        widths: Sequence[int] = (6, 16, 120, 84),
        in_channels: int = 1,
        num_classes: int = 10,
        image_size: int = 28,
    ) -> None:
        super().__init__()
        if len(widths) != 4 or min(widths) < 1:
            raise ValueError(f"widths={tuple(widths)}: must be four positive numbers.")
        if image_size < 16 or image_size % 4:
            raise ValueError(f"image_size={image_size}: must be a multiple of 4 from 16 on.")
        # The first convolution keeps the size, each pooling halves it, the second convolution takes
        # 4.
        side = (image_size // 2 - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, widths[0], 5, padding=2)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 5)
        self.fc1 = nn.Linear(widths[1] * side * side, widths[2])
        self.fc2 = nn.Linear(widths[2], widths[3])
        self.fc3 = nn.Linear(widths[3], num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, image_size, image_size) -> (N, num_classes) logits."""
        out = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        out = functional.max_pool2d(functional.relu(self.conv2(out)), 2)
        out = functional.relu(self.fc1(torch.flatten(out, 1)))
        out = functional.relu(self.fc2(out))
        return self.fc3(out)
