"""A latency table: random prunings of a network that were timed once, and what they predict.

So a search need not time every candidate. The table is a file of JSON lines, one per network that
was timed, behind a line that says of what it is: network, runtime, batch, threads, processor and
versions. It is written as it is measured, so that what was interrupted goes on; `latency_model.py`
has the formula that is fitted to it. Knows nothing of budgets.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from pruning_env.evaluation.latency import typical_ratio
from pruning_env.evaluation.latency_model import LatencyModel, fit_latency
from pruning_env.evaluation.machine import processor
from pruning_env.evaluation.runtimes import Runtime
from pruning_env.files import append_line
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.structure import Counts

__all__ = ["CHECKED", "FITTED", "LatencyTable", "identity", "latency_table", "random_counts"]

FITTED = 60
"""Networks that are timed to fit the formula."""

CHECKED = 30
"""Networks that are timed only to say how far off it is."""

_SAFE = 0.9  # share of the networks that were checked which are no slower than `at_most`


@dataclass(frozen=True)
class LatencyTable:
    """Predicts the time of a pruned network / the time of the dense one.

    Attributes:
        model: the formula, fitted to the first `FITTED` networks.
        error: median of |predicted / timed - 1| over the `CHECKED` others.
        margin: by how much more than predicted these took, 9 of 10 at most; at least 0.
    """

    model: LatencyModel
    error: float
    margin: float

    def ratio(self, counts: Counts) -> NDArray[np.float64]:
        """(...,) the likeliest ratio at counts (..., L)."""
        return self.model.ratio(counts)

    def at_most(self, counts: Counts) -> NDArray[np.float64]:
        """(...,) the ratio that networks of counts (..., L) rarely exceed."""
        return self.model.ratio(counts) * (1 + self.margin)


def latency_table(
    path: str | os.PathLike[str],
    graph: ChannelGraph,
    dense: nn.Module,
    images: torch.Tensor,
    runtime: Runtime,
    *,
    floors: Counts,
    round_to: int = 1,
    progress: bool = True,
) -> LatencyTable:
    """The table at `path`, which is measured now as far as it is not there.

    Args:
        path: a file; made, or continued.
        graph: of the network.
        dense: the network, in eval mode, on the device of `images`; it stays as it is.
        images: (N, ...) whose first make the batch.
        runtime: where it is timed.
        floors: (L,) int64, the fewest channels that each group can keep.
        round_to: widths are dense or multiples of it, as in the networks that are to be predicted.
        progress: whether to show a bar, on a terminal.

    Raises:
        ValueError: the file is of something else, or damaged; the runtime cannot run the network.
        OSError: it cannot be read or written.
    """
    wanted = identity(graph, images, runtime, round_to)
    sample = random_counts(graph.sizes, floors, round_to, FITTED + CHECKED)
    known = _read(Path(path), wanted, sample)
    if len(known) < len(sample):
        if not known:
            _begin(Path(path), wanted)
        rank = graph.rank(np.zeros(graph.num_channels))  # which channels is all the same
        with runtime.ready([dense], images, many=True) as ((whole,), batch):
            for counts in tqdm(
                sample[len(known) :],
                desc="latency table",
                unit="network",
                total=len(sample),
                initial=len(known),
                disable=None if progress else True,
            ):
                pruned = graph.prune(dense, graph.keep_top(rank, counts))
                with runtime.ready([pruned], images, many=True) as ((part,), _):
                    ratio = typical_ratio(whole, part, batch)
                append_line(path, json.dumps({"counts": counts.tolist(), "ratio": ratio}))
                known.append(ratio)
    return _fitted(graph, sample, np.array(known))


def random_counts(sizes: Counts, floors: Counts, round_to: int, number: int) -> Counts:
    """(number, L) channels of random prunings, always the same; the first is the smallest.

    Each has a share of the channels that it keeps on average, uniform in [0.15, 1], about which its
    groups are spread with a standard deviation of 0.2.
    """
    rng = np.random.default_rng(0)
    middle = rng.uniform(0.15, 1.0, (number, 1))
    shares = rng.normal(middle, 0.2, (number, len(sizes)))
    units = np.round(shares * sizes / round_to).astype(np.int64)
    counts = np.maximum(units * round_to, floors)
    counts[0] = floors
    return np.where(counts >= sizes, sizes, counts)


def identity(
    graph: ChannelGraph, images: torch.Tensor, runtime: Runtime, round_to: int
) -> dict[str, Any]:
    """What a table is of; a prediction holds for nothing else."""
    device = images.device
    packages = ["torch", "onnxruntime"] if runtime.name == "onnxruntime" else ["torch"]
    return {
        "network": graph.fingerprint,
        "input": list(images.shape[1:]),
        "round_to": round_to,
        "runtime": runtime.name,
        "batch": runtime.batch,
        "threads": runtime.threads or torch.get_num_threads(),
        "processor": processor(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _begin(path: Path, wanted: dict[str, Any]) -> None:
    if not path.exists() or not path.read_bytes():
        append_line(path, json.dumps(wanted))


def _read(path: Path, wanted: dict[str, Any], sample: Counts) -> list[float]:
    """The ratios in the file; the line that a kill left unfinished does not count."""
    if not path.exists():
        return []
    whole, unfinished = [], False
    for line in path.read_text(errors="replace").splitlines():
        try:
            whole.append(json.loads(line))
        except json.JSONDecodeError:
            unfinished = True
    if not whole:
        if unfinished:
            raise ValueError(_bad(path, "it is no latency table"))
        return []
    _check_identity(path, whole[0], wanted)
    ratios = []
    for number, (row, counts) in enumerate(zip(whole[1:], sample, strict=False), start=2):
        given, ratio = (row.get("counts"), row.get("ratio")) if isinstance(row, dict) else (0, 0)
        if not isinstance(ratio, float) or not 0 < ratio < np.inf or given != counts.tolist():
            raise ValueError(_bad(path, f"entry {number} is damaged"))
        ratios.append(ratio)
    return ratios


def _check_identity(path: Path, given: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(given, dict) or not {"network", "runtime"} <= set(given):
        raise ValueError(_bad(path, "it is no latency table"))
    for name in dict.fromkeys([*wanted, *given]):
        if given.get(name) != wanted.get(name):
            raise ValueError(
                _bad(path, f"it is of {name} {given.get(name)!r}, not {wanted.get(name)!r}")
            )


def _bad(path: Path, reason: str) -> str:
    return (
        f"table={os.fspath(path)!r} cannot be used: {reason}. "
        "Give another file, or remove this one to have it measured anew"
    )


def _fitted(graph: ChannelGraph, sample: Counts, ratios: NDArray[np.float64]) -> LatencyTable:
    model = fit_latency(graph, sample[:FITTED], ratios[:FITTED])
    off = ratios[FITTED:] / model.ratio(sample[FITTED:])
    error = float(np.median(np.abs(1 / off - 1)))
    return LatencyTable(model, error, max(0.0, float(np.quantile(off, _SAFE)) - 1))
