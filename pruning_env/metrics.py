"""Accuracy and loss of a module on labelled images. Knows nothing of pruning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["LOSS_CAP", "Metrics", "measure"]

LOSS_CAP = 1e4
"""Largest loss of one image, in nats. Images with a non-finite output count with this loss."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluation yields; never NaN.

    Attributes:
        accuracy: Top-1, in [0, 1]. An image for which any output is NaN or infinite is counted as
            wrong.
        loss: Mean cross-entropy in nats, each image capped at `LOSS_CAP`.
    """

    accuracy: float
    loss: float


def measure(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int
) -> Metrics:
    """Judge a module in eval mode on labelled images.

    Args:
        model: Returns (N, classes) logits.
        images: (N, ...) normalised, on the model's device, N >= 1.
        labels: (N,) int64, same device.
        batch_size: Images per forward pass. Sums run over all images at once, so that the result
            depends on it only as far as the logits of an image do.
    """
    correct, losses = [], []
    with torch.inference_mode():
        for batch, target in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            logits = model(batch)
            finite = logits.isfinite().all(dim=1)
            correct.append((logits.argmax(dim=1) == target) & finite)
            # Half precision would round the loss itself.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            each = F.cross_entropy(logits, target, reduction="none")
            losses.append(torch.where(finite, each, LOSS_CAP).clamp(max=LOSS_CAP))
        # The only wait for the device: everything above is queued.
        return Metrics(
            accuracy=int(torch.cat(correct).sum()) / len(labels),
            loss=float(torch.cat(losses).sum(dtype=torch.float64)) / len(labels),
        )
