"""The speed of surgery: milliseconds per candidate, ours against Torch-Pruning's, in turns."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor, nn

from benchmarks.zoo.catalogue import example_input, zoo_models
from benchmarks.zoo.peer import peer_pruner, peer_version
from benchmarks.zoo.rows import Timing
from benchmarks.zoo.timing import interleaved
from pruning_agents.search.rows import Provenance, provenance
from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph

#: How many times faster than Torch-Pruning we set out to be.
TARGETS = {
    "resnet18": 5.0,
    "resnet50": 5.0,
    "vgg16": 5.0,
    "mobilenet_v2": 10.0,
    "googlenet": 25.0,
    "densenet121": 150.0,
}

#: Share of the channels that a candidate keeps.
RATIO = 0.5


@dataclass(frozen=True)
class SurgerySettings:
    """What to time.

    Attributes:
        models: names of the zoo.
        threads: of torch, one after the other.
        repetitions: rounds to take medians over.
        seconds: of processor time per model and number of threads; no round begins after it.
        seed: of weights, inputs and masks.
        out: file of rows; the table goes beside it.
    """

    models: tuple[str, ...] = tuple(TARGETS)
    threads: tuple[int, ...] = (1, 2)
    repetitions: int = 15
    seconds: float = 90.0
    seed: int = 0
    out: Path = Path("benchmarks/results/surgery.jsonl")


@dataclass(frozen=True)
class SurgeryRow:
    """One model at one number of threads.

    Attributes:
        model: Its name.
        shapes: Of its inputs.
        threads: Of torch.
        seed: Of weights, inputs and masks.
        ours: A fresh random mask at 50 %, and `graph.prune`.
        floor: Nothing but the slices: one copy per tensor, indices known.
        peer: Torch-Pruning's `deepcopy`, pruner and step; None where it is not installed.
        provenance: How, where and when.
    """

    model: str
    shapes: tuple[tuple[int, ...], ...]
    threads: int
    seed: int
    ours: Timing
    floor: Timing
    peer: Timing | None
    provenance: Provenance

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


def run_surgery(
    settings: SurgerySettings, command: str, console: Console
) -> tuple[SurgeryRow, ...]:
    """Time every model; write rows and table, print the table; return the rows.

    Raises:
        ValueError: When a model is unknown.
    """
    unknown = [name for name in settings.models if name not in zoo_models()]
    if unknown:
        raise ValueError(
            f"--models: {', '.join(unknown)} unknown; known: {', '.join(zoo_models())}"
        )
    origin = provenance(command)
    origin = dataclasses.replace(
        origin, versions=origin.versions | {"torch-pruning": peer_version() or "not installed"}
    )
    rows = []
    before = torch.get_num_threads()
    try:
        for name in settings.models:
            for threads in settings.threads:
                torch.set_num_threads(threads)
                rows.append(_timed(name, threads, settings, origin))
    finally:
        torch.set_num_threads(before)
    atomic_write(settings.out, "".join(row.to_json() + "\n" for row in rows))
    text = to_markdown(rows)
    atomic_write(settings.out.with_suffix(".md"), text)
    console.print(text, highlight=False, soft_wrap=True, markup=False)
    return tuple(rows)


def _timed(name: str, threads: int, settings: SurgerySettings, origin: Provenance) -> SurgeryRow:
    entry = zoo_models()[name]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)  # modules draw their weights from the global generator
        model = entry.build().eval()
    inputs = example_input(entry, 1, settings.seed)
    graph = ChannelGraph.trace(model, inputs)
    rng = np.random.default_rng(settings.seed)
    contestants: list[Callable[[], object]] = [
        lambda: graph.prune(model, graph.random_keep(RATIO, rng)),
        slicer(graph, model, graph.random_keep(RATIO, rng)),
    ]
    if peer_version() is not None:
        contestants.append(peer_pruner(graph, model, inputs))
    ours, floor, *others = interleaved(contestants, settings.repetitions, settings.seconds)
    return SurgeryRow(
        model=name,
        shapes=entry.shapes,
        threads=threads,
        seed=settings.seed,
        ours=ours,
        floor=floor,
        peer=others[0] if others else None,
        provenance=origin,
    )


def slicer(
    graph: ChannelGraph, model: nn.Module, keep: NDArray[np.bool_]
) -> Callable[[], list[Tensor]]:
    """A function that copies what survives of every tensor: the least that any surgery has to do.

    Everything else (indices, modules, attributes) is known before the clock starts.
    """
    kept = np.append(keep, True)
    wanted: dict[str, list[tuple[int, Tensor]]] = {}
    for slot in graph.slots:
        index = torch.from_numpy(np.flatnonzero(kept[slot.channels]))
        if len(index) < len(slot.channels):
            wanted.setdefault(slot.tensor, []).append((slot.dim, index))
    tensors = [
        # The larger cut first, as the second copies what the first has left.
        (
            tensor.detach(),
            sorted(wanted.get(name, ()), key=lambda s: len(s[1]) / tensor.shape[s[0]]),
        )
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    ]

    def copy() -> list[Tensor]:
        survivors = []
        for tensor, cuts in tensors:
            value = tensor if cuts else tensor.clone()
            for dim, index in cuts:
                value = value.index_select(dim, index)
            survivors.append(value)
        return survivors

    return copy


def to_markdown(rows: Sequence[SurgeryRow]) -> str:
    """The table, and what has to be said about it.

    Raises:
        ValueError: When there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    lines = [
        (
            "model",
            "threads",
            "ours ms",
            "slices only ms",
            "Torch-Pruning ms",
            "times faster",
            "by processor time",
            "target",
            "met",
        ),
        ("---", *["---:"] * 8),
    ]
    for row in rows:
        target = TARGETS.get(row.model)
        ratio = row.peer.wall_ms / row.ours.wall_ms if row.peer else None
        cpu = row.peer.cpu_ms / row.ours.cpu_ms if row.peer else None
        lines.append(
            (
                row.model,
                str(row.threads),
                f"{row.ours.wall_ms:.1f}",
                f"{row.floor.wall_ms:.1f}",
                f"{row.peer.wall_ms:.1f}" if row.peer else "-",
                f"{ratio:.1f}" if ratio else "-",
                f"{cpu:.1f}" if cpu else "-",
                f"{target:g}" if target else "-",
                "-" if not target or not ratio else "yes" if ratio >= target else "NO",
            )
        )
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    first = rows[0]
    repetitions = sorted({row.ours.repetitions for row in rows})
    return f"""{body}

One candidate at 50 %. Wall milliseconds, medians of {repetitions[0]} to {repetitions[-1]} rounds
in which all contestants take turns in one process; "by processor time" is the same ratio without
the time that other processes took. Ours: a fresh random mask and `graph.prune`. Slices only: one
copy per tensor with known indices, which no surgery can do without. Torch-Pruning: `deepcopy`,
`BasePruner` with random importance, one step. {first.provenance.hardware.rsplit(",", 1)[0]}; torch
{first.provenance.versions["torch"]}, Torch-Pruning {first.provenance.versions["torch-pruning"]}.
"""
