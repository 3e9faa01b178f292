"""A latency table per network, runtime and rounding of widths; and networks of even and odd widths.

Times do not depend on what weights are, so the networks are untrained.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pruning_agents.search.rows import Provenance
from pruning_env.evaluation.latency import latency_ratio
from pruning_env.evaluation.latency_table import latency_table
from pruning_env.evaluation.runtimes import Runtime
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task

__all__ = ["FEWER", "LatencyRow", "measure"]

FEWER = (0, 1, 2, 4, 8)
"""Channels that each group has fewer than half of its own, where that leaves it some."""


@dataclass(frozen=True)
class LatencyRow:
    """What a latency table of a network in a runtime is worth.

    Attributes:
        task: whose network, untrained.
        runtime: of `RUNTIMES`.
        batch: images per pass.
        threads: of the processor.
        round_to: widths are dense or multiples of it.
        error: median relative error on random prunings that the formula was not fitted to.
        margin: see `LatencyTable`.
        block: of the formula: multiples that the runtime wants.
        seconds: that the table took; less where a part of it was there.
        dense_ms: median of the dense network's times.
        halves: `(channels fewer than half, share of MACs, ratio of times, low, high)` of networks
            of which each group has half its channels, or a few fewer.
        seed: of the random prunings.
        provenance: how, where and when.
    """

    task: str
    runtime: str
    batch: int
    threads: int
    round_to: int
    error: float
    margin: float
    block: int
    seconds: float
    dense_ms: float
    halves: tuple[tuple[int, float, float, float, float], ...]
    seed: int
    provenance: Provenance

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


def measure(
    task: str,
    runtime: Runtime,
    rounding: tuple[int, ...],
    folder: Path,
    origin: Provenance,
    progress: bool = True,
) -> Iterator[LatencyRow]:
    """A row for each rounding of widths.

    Args:
        task: registered name.
        runtime: where networks are timed.
        rounding: values of `round_to`.
        folder: for the tables' files, which are continued.
        origin: of the rows.
        progress: whether to show bars.
    """
    images = get_task(task).example_input()
    torch.manual_seed(0)
    dense = get_task(task).build().eval()
    graph = ChannelGraph.trace(dense, images)
    halves = tuple(_halves(graph, dense, images, runtime))
    for round_to in rounding:
        begin = time.perf_counter()
        table = latency_table(
            folder / f"{task}-{runtime.name}-{runtime.batch}-{round_to}.jsonl",
            graph,
            dense,
            images,
            runtime,
            floors=np.minimum(round_to, graph.sizes),
            round_to=round_to,
            progress=progress,
        )
        yield LatencyRow(
            task,
            runtime.name,
            runtime.batch,
            runtime.threads or torch.get_num_threads(),
            round_to,
            table.error,
            table.margin,
            table.model.block,
            time.perf_counter() - begin,
            halves[0][0],
            tuple(each[1:] for each in halves),
            0,
            origin,
        )


def _halves(
    graph: ChannelGraph, dense: torch.nn.Module, images: torch.Tensor, runtime: Runtime
) -> Iterator[tuple[float, int, float, float, float, float]]:
    rank = graph.rank(np.zeros(graph.num_channels))
    for fewer in FEWER:
        counts = graph.sizes // 2 - fewer
        if (counts < 1).any():
            continue
        pruned = graph.prune(dense, graph.keep_top(rank, counts))
        with runtime.ready([dense, pruned], images, many=True) as ((whole, part), batch):
            ratio = latency_ratio(whole, part, batch)
        macs = int(graph.macs_at(counts)) / int(graph.macs_at(graph.sizes))
        middle = ratio.seconds / ratio.dense_seconds
        yield 1e3 * ratio.dense_seconds, fewer, macs, middle, ratio.low, ratio.high
