"""What is done to a network right after channels were cut and before it is judged.

A recovery changes a module in place, using calibration images only. Knows nothing of channel
graphs, keep masks or accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import MappingProxyType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = [
    "CALIBRATION_BATCH",
    "RECOVERIES",
    "RECOVERY_NAMES",
    "RECOVERY_TIMES",
    "batch_norms",
    "batch_statistics",
    "leave_as_is",
    "recalibrate_batch_norm",
]

CALIBRATION_BATCH = 128
"""Most images per batch whose statistics are averaged.

A constant of its own, not the evaluator's batch size: a setting for speed must not move accuracies.
128 is what the CIFAR networks were trained with, and the fastest batch on a CPU.
"""


def leave_as_is(model: nn.Module, images: torch.Tensor) -> None:
    """Do nothing: the network is judged as it was cut."""


def recalibrate_batch_norm(model: nn.Module, images: torch.Tensor) -> None:
    """Re-estimate all batch-norm statistics from `images`.

    Removing channels shifts the distribution of what the next layers add up, and the stored means
    and variances no longer fit. They are reset and replaced by the average over batches of at most
    `CALIBRATION_BATCH` images (near-equal batches, each with the same weight, in the given order:
    no randomness). Only the batch-norm layers see train mode; dropout and everything else stay in
    eval mode, and the model is in eval mode afterwards. A model without batch norm is left alone.

    Source: adaptive batch normalisation in Li et al. 2020, "EagleEye: Fast Sub-net Evaluation for
    Efficient Neural Network Pruning".

    Args:
        model: Changed in place; momentum and gradients are left as they were.
        images: (N, ...) normalised, N >= 2.
    """
    norms = batch_norms(model)
    model.eval()
    if not norms:
        return
    with batch_statistics(norms.values()):
        batches = images.tensor_split(math.ceil(len(images) / CALIBRATION_BATCH))
        with torch.inference_mode():
            for number, batch in enumerate(batches, start=1):
                for norm in norms.values():
                    # The cumulative average, as `momentum = None` takes it; but that reads a
                    # counter off the device, once per layer and batch.
                    norm.momentum = 1.0 / number
                model(batch)


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The batch-norm layers that hold statistics, by their paths."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def batch_statistics(norms: Collection[_BatchNorm]) -> Iterator[None]:
    """Inside, these norms start anew, use and store the statistics of each batch; then eval mode.

    What is stored is the last batch's, unless their momentum is changed meanwhile; it is restored.
    """
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = 1.0
            norm.train()
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


RECOVERIES: MappingProxyType[str, Callable[[nn.Module, torch.Tensor], None]] = MappingProxyType(
    {"none": leave_as_is, "bn": recalibrate_batch_norm}
)
"""Recoveries that change no parameter, by the name that `Evaluator(recovery=...)` takes."""

RECOVERY_NAMES = (*RECOVERIES, "reconstruct", "finetune")
"""All of them; the others are in reconstruction.py and finetuning.py."""

RECOVERY_TIMES = ("candidate", "commit")
"""When it happens: to every network that is judged, or to those that an episode goes on with."""
