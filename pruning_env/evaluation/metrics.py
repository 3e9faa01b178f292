"""Accuracy and loss of one or several networks on labelled images. Knows nothing of pruning."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "LOSS_CAP",
    "BatchSize",
    "Metrics",
    "Outputs",
    "measure",
    "measure_together",
    "outputs_in_batches",
]

LOSS_CAP = 1e4
"""Largest loss of one image, in nats. Images with a non-finite output count with this loss."""


Outputs = Callable[[torch.Tensor], torch.Tensor]
"""What K networks say of the same images: (n, ...) -> (K, n, classes) logits."""


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


@dataclass
class BatchSize:
    """Most images per forward pass, for somebody who runs many: lowered when memory is short.

    Attributes:
        images: How many, at least 1.
    """

    images: int


def outputs_in_batches(
    run: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, batch_size: int | BatchSize
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Which images were run, and what `run` returned for them, batch by batch and in order.

    A batch that does not fit into the device's memory is halved, with a warning, and so are those
    that follow, also of later calls with the same `BatchSize`; one image that does not fit is an
    error.

    Raises:
        torch.OutOfMemoryError: For one image.
    """
    limit = BatchSize(batch_size) if isinstance(batch_size, int) else batch_size
    start = 0
    while start < len(images):
        batch = images[start : start + limit.images]
        try:
            outputs = run(batch)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            limit.images = len(batch) // 2
        else:
            yield slice(start, start + len(batch)), outputs
            start += len(batch)
            continue
        # Out of the except clause, whose traceback kept all activations alive.
        warnings.warn(
            f"out of memory with {len(batch)} images per forward pass on {images.device}; going on "
            f"with {limit.images}. Give batch_size={limit.images} or less to avoid the attempt",
            RuntimeWarning,
            stacklevel=2,
        )
        if images.is_cuda:
            torch.cuda.empty_cache()


def measure(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, batch_size: int | BatchSize
) -> Metrics:
    """Judge a module in eval mode on labelled images.

    Args:
        model: Returns (N, classes) logits.
        images: (N, ...) normalised, on the model's device, N >= 1.
        labels: (N,) int64, same device.
        batch_size: Most images per forward pass, see `outputs_in_batches`. Sums run over all images
            at once, so that the result depends on it only as far as the logits of an image do.
    """
    return measure_together(lambda batch: model(batch).unsqueeze(0), images, labels, batch_size)[0]


def measure_together(
    outputs: Outputs, images: torch.Tensor, labels: torch.Tensor, batch_size: int | BatchSize
) -> list[Metrics]:
    """`measure` of the K networks whose logits `outputs` gives, in order."""
    correct, losses = [], []
    with torch.inference_mode():
        for part, logits in outputs_in_batches(outputs, images, batch_size):
            target = labels[part]
            finite = logits.isfinite().all(dim=2)
            correct.append((logits.argmax(dim=2) == target) & finite)
            # Half precision would round the loss itself.
            logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
            every = target.repeat(len(logits))
            each = F.cross_entropy(logits.flatten(0, 1), every, reduction="none").view_as(finite)
            losses.append(torch.where(finite, each, LOSS_CAP).clamp(max=LOSS_CAP))
        # Row by row, so that a network's sum is rounded alike in any company.
        sums = torch.stack([row.sum(dtype=torch.float64) for row in torch.cat(losses, 1)])
        # The only waits for the device: everything above is queued.
        right = torch.cat(correct, 1).sum(1).tolist()
        return [
            Metrics(accuracy=hits / len(labels), loss=loss / len(labels))
            for hits, loss in zip(right, sums.tolist(), strict=True)
        ]
