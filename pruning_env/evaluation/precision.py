"""Which arithmetic floating-point kernels may use, set for a block and put back after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["PRECISIONS", "arithmetic"]

PRECISIONS = ("float32", "bfloat16")


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
