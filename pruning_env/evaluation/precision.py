"""Which arithmetic floating-point kernels may use, and which a device has kernels for."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["PRECISIONS", "TRAINING_PRECISIONS", "arithmetic", "training_precision"]

PRECISIONS = ("float32", "bfloat16")
TRAINING_PRECISIONS = ("auto", *PRECISIONS)


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Run the block in the model's own precision, or with bfloat16 where autocast allows it.

    TensorFloat-32, which keeps 10 of 23 bits and is a global setting of torch, is off inside:
    accuracies must not depend on what a program set elsewhere.

    Args:
        precision: "float32": nothing is rounded; "bfloat16": autocast.
        device: Where the block runs.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def training_precision(precision: str, device: torch.device) -> str:
    """What a training runs in: the precision asked for, and for "auto" the device's quickest.

    A processor without instructions for bfloat16 (AVX-512 on x86) still computes it, by
    kernels that are much slower than those of float32.

    Args:
        precision: One of `TRAINING_PRECISIONS`.
        device: Where the training runs.

    Returns:
        One of `PRECISIONS`.

    Warns:
        RuntimeWarning: bfloat16 was asked for by name where it is slow.
    """
    quick = _computes_bfloat16(device)
    if precision == "auto":
        return "bfloat16" if quick else "float32"
    if precision == "bfloat16" and not quick:
        warnings.warn(
            f'precision="bfloat16": this {device.type} has no instructions for it, and trains '
            'faster with "float32", which "auto" takes here.',
            RuntimeWarning,
            stacklevel=2,
        )
    return precision


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # What torch's own convolutions ask before they hand bfloat16 to oneDNN; it has no public name.
    return device.type == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
