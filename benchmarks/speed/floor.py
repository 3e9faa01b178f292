"""The least a step can cost: plain forward passes of the really pruned network."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import nn

from pruning_env.evaluation.latency import wait_for

BATCH_SIZES = {"cpu": (32, 64, 128, 256), "cuda": (256, 1024, 4096)}


class Floor:
    """A forward pass of search-val and, with recovery, a train-mode one of the calibration images.

    Each at its fastest memory format of the images and batch size, found on the first network given
    to `choose`. Layers other than batch norm make no difference between the modes here.

    Args:
        images: (N, ...) to judge on.
        calibration: (M, ...) or None for no recovery.
    """

    def __init__(self, images: torch.Tensor, calibration: torch.Tensor | None) -> None:
        sizes = BATCH_SIZES.get(images.device.type, (128,))
        self._variants = [_layouts(images, sizes)]
        if calibration is not None:
            self._variants.append(_layouts(calibration, sizes))
        self._chosen: list[tuple[torch.Tensor, int]] = []

    def choose(self, model: nn.Module, turns: int = 2) -> None:
        """Find the fastest variants, each timed `turns` times in turns after one warm-up."""
        for training, variants in enumerate(self._variants):
            best: dict[int, float] = {}
            for turn in range(turns + 1):
                for index, variant in enumerate(variants):
                    spent = _forward(model, *variant, training=bool(training))
                    if turn:
                        best[index] = min(best.get(index, spent), spent)
            self._chosen.append(variants[min(best, key=lambda index: best[index])])

    def seconds(self, model: nn.Module) -> float:
        """One pass of each kind, timed; leaves the model in eval mode."""
        return sum(
            _forward(model, *variant, training=bool(training))
            for training, variant in enumerate(self._chosen)
        )

    @property
    def batch_size(self) -> int:
        """Of the pass over search-val."""
        return self._chosen[0][1]


def _layouts(images: torch.Tensor, sizes: tuple[int, ...]) -> list[tuple[torch.Tensor, int]]:
    fitting = [size for size in sizes if size <= len(images)] or [len(images)]
    layouts = (images.contiguous(), images.contiguous(memory_format=torch.channels_last))
    return [(layout, size) for layout in layouts for size in fitting]


def _forward(model: nn.Module, images: torch.Tensor, batch_size: int, *, training: bool) -> float:
    model.train(training)

    def run() -> None:
        with torch.inference_mode():
            for batch in images.tensor_split(-(-len(images) // batch_size)):
                model(batch)

    spent = timed(run, images.device)
    model.eval()
    return spent


def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call, with the device's work done."""
    wait_for(device)
    start = time.perf_counter()
    function()
    wait_for(device)
    return time.perf_counter() - start
