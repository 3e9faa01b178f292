"""How long a network takes where it will run: PyTorch, and ONNX Runtime where that is installed."""

from __future__ import annotations

import importlib.util

import torch
from torch import nn

from pruning_agents.compress.rows import LatencyRow
from pruning_agents.search.judge import time_both
from pruning_agents.search.rows import Provenance
from pruning_env.evaluation.runtimes import Runtime

__all__ = ["measure_runtimes"]

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def measure_runtimes(
    dense: nn.Module, pruned: nn.Module, input_shape: tuple[int, ...], provenance: Provenance
) -> list[LatencyRow]:
    """A row per runtime: one image per pass, on the CPU, with torch's threads.

    Args:
        dense: In eval mode, on the CPU.
        pruned: Likewise.
        input_shape: Of one image.
        provenance: Of this process.
    """
    image = torch.zeros(1, *input_shape)
    names = ["eager"]
    if all(importlib.util.find_spec(package) for package in _ONNX):
        names.append("onnxruntime")
    rows = []
    for runtime in map(Runtime, names):
        timed = time_both(dense, pruned, image, runtime)
        rows.append(
            LatencyRow(
                runtime=runtime.name,
                batch=runtime.batch,
                threads=torch.get_num_threads(),
                ms=1e3 * timed.seconds,
                dense_ms=1e3 * timed.dense_seconds,
                ratio=timed.seconds / timed.dense_seconds,
                rounds=timed.rounds,
                interval=(timed.low, timed.high),
                provenance=provenance,
            )
        )
    return rows
