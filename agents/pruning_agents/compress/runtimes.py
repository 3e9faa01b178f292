"""How long a network takes where it will run: PyTorch, and ONNX Runtime where that is installed.

One image per pass, the dense network and the pruned one taking turns.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from pruning_agents.compress.rows import LatencyRow
from pruning_agents.search.rows import Provenance
from pruning_env.evaluation.latency import interleaved_latency
from pruning_env.tasks.export import OnnxNetwork, export

__all__ = ["measure_runtimes"]

_ONNX = ("onnx", "onnxscript", "onnxruntime")


def measure_runtimes(
    dense: nn.Module, pruned: nn.Module, input_shape: tuple[int, ...], provenance: Provenance
) -> list[LatencyRow]:
    """A row per runtime, on the CPU, with torch's threads.

    Args:
        dense: In eval mode, on the CPU.
        pruned: Likewise.
        input_shape: Of one image.
        provenance: Of this process.
    """
    image = torch.zeros(1, *input_shape)
    rows = [_row("eager", [dense, pruned], image, provenance)]
    if all(importlib.util.find_spec(package) for package in _ONNX):
        with _as_onnx([dense, pruned], input_shape) as networks:
            rows.append(_row("onnxruntime", networks, image, provenance))
    return rows


def _row(
    runtime: str, networks: list[nn.Module], image: torch.Tensor, provenance: Provenance
) -> LatencyRow:
    dense, pruned = (1e3 * float(each) for each in interleaved_latency(networks, image))
    threads = torch.get_num_threads()
    return LatencyRow(runtime, len(image), threads, pruned, dense, pruned / dense, provenance)


@contextmanager
def _as_onnx(networks: list[nn.Module], input_shape: tuple[int, ...]) -> Iterator[list[nn.Module]]:
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.onnx" for number in range(len(networks))]
        for network, file in zip(networks, files, strict=True):
            export(network, file, input_shape)
        yield [OnnxNetwork(file) for file in files]
