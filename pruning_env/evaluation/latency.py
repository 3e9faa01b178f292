"""How long models take on this machine, measured side by side.

Timings of small models drift with temperature, clock and neighbours, so the models take turns and
each is summarised by its median. Knows nothing of pruning.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


def interleaved_latency(
    models: Sequence[nn.Module], images: torch.Tensor, *, rounds: int = 30, warmup: int = 3
) -> NDArray[np.float64]:
    """Median seconds that each model takes for one forward pass of `images`.

    One round runs every model once, so all see the same drift; the order turns by one from round to
    round. Runs in inference mode, on the device of `images`, with torch's current threads.

    Args:
        models: in eval mode, on the device of `images`.
        images: (N, ...) one batch; the latency is that of the whole batch.
        rounds: timed rounds, at least 1.
        warmup: rounds before them that are not timed.

    Returns:
        (len(models),) seconds.

    Raises:
        ValueError: if `rounds` is below 1 or there is no model.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    if not models:
        raise ValueError("models is empty; give at least one")
    seconds = np.empty((warmup + rounds, len(models)))
    with torch.inference_mode():
        for turn in range(warmup + rounds):
            for offset in range(len(models)):
                index = (turn + offset) % len(models)
                wait_for(images.device)
                start = time.perf_counter()
                models[index](images)
                wait_for(images.device)
                seconds[turn, index] = time.perf_counter() - start
    return np.median(seconds[warmup:], axis=0)


def wait_for(device: torch.device) -> None:
    """Kernels on an accelerator run behind the caller's back; time only finished ones."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
