"""Run the zoo: one process per network, watched for memory and time, and a row for each."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

from rich.console import Console

from benchmarks.zoo.catalogue import FAMILIES, ZooModel, buildable_families, zoo_models
from benchmarks.zoo.peer import peer_version
from benchmarks.zoo.rows import (
    Measurement,
    Peer,
    ZooRow,
    measurement_from,
    peer_from,
    read_rows,
    write_rows,
)
from benchmarks.zoo.table import summary, to_markdown
from benchmarks.zoo.worker import OURS, PEER, Job, work
from pruning_agents.search.rows import Provenance, provenance
from pruning_env.files import atomic_write

#: Distributions, besides those of every row, that a row of the zoo depends on.
_RECORDED = ("torchvision", "timm", "torch-pruning")


@dataclass(frozen=True)
class ZooSettings:
    """What to run, and how far to go.

    Attributes:
        models: names; empty for all of `families`.
        families: as in the catalogue; all that can be built here unless said.
        peers: measure Torch-Pruning, too.
        out: file of rows; the table goes beside it. Rows of other networks stay.
        resume: leave out what has a row without failures (and with a peer, if peers are measured).
        seed: of weights, inputs and masks.
        threads: of torch, in each worker.
        repetitions: of each timing.
        memory_gib: a worker that grows larger is stopped.
        seconds: a worker may take until our side is done.
        peer_seconds: it may take for the peer after that.
    """

    models: tuple[str, ...] = ()
    families: tuple[str, ...] = field(default_factory=buildable_families)
    peers: bool = False
    out: Path = Path("benchmarks/results/zoo.jsonl")
    resume: bool = False
    seed: int = 0
    threads: int = 1
    repetitions: int = 9
    memory_gib: float = 12.0
    seconds: float = 1800.0
    peer_seconds: float = 600.0


def run_zoo(settings: ZooSettings, command: str, console: Console) -> tuple[ZooRow, ...]:
    """Measure every network asked for; write the rows and the table after each; return all rows.

    Raises:
        ValueError: When a model or family is unknown, or timm or peers are wanted and not
            installed.
    """
    chosen = _chosen(settings)
    if settings.peers and peer_version() is None:
        raise ValueError("--peers needs torch-pruning, which is not installed")
    rows = read_rows(settings.out)
    origin = _origin(command)
    for number, model in enumerate(chosen, start=1):
        known = rows.get(model.name)
        if settings.resume and known and _complete(known, settings):
            continue
        begin = time.monotonic()
        row = _measured(model, settings, origin)
        rows[model.name] = row
        ordered = [rows[name] for name in zoo_models() if name in rows]
        write_rows(settings.out, ordered)
        atomic_write(settings.out.with_suffix(".md"), to_markdown(ordered))
        verdict = row.skipped or "; ".join(row.failures()) or "ok"
        console.print(
            f"{number:4}/{len(chosen)} {model.name}: {verdict} ({time.monotonic() - begin:.0f} s)",
            highlight=False,
            soft_wrap=True,
        )
    ordered = [rows[name] for name in zoo_models() if name in rows]
    console.print(summary(ordered), highlight=False, soft_wrap=True)
    return tuple(ordered)


def _complete(row: ZooRow, settings: ZooSettings) -> bool:
    wanted = row.peer is not None or not settings.peers
    return row.ours is not None and not row.failures() and wanted


def _chosen(settings: ZooSettings) -> list[ZooModel]:
    known = zoo_models()
    for kind, given, allowed in (
        ("--models", settings.models, tuple(known)),
        ("--families", settings.families, FAMILIES),
    ):
        unknown = [name for name in given if name not in allowed]
        if unknown:
            raise ValueError(
                f"{kind}: {', '.join(unknown)} unknown; known are {', '.join(allowed)}"
            )
    chosen = [
        model
        for model in known.values()
        if (model.name in settings.models if settings.models else model.family in settings.families)
    ]
    if any(model.family not in buildable_families() for model in chosen):
        raise ValueError(
            "networks of timm need timm, which is not installed: the extra timm has it"
        )
    return chosen


def _origin(command: str) -> Provenance:
    origin = provenance(command)
    versions = dict(origin.versions)
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return dataclasses.replace(origin, versions=versions)


def _measured(model: ZooModel, settings: ZooSettings, origin: Provenance) -> ZooRow:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "log"
        stopped = _watch(_start(model, settings, folder, log), folder / OURS, settings)
        ours: Measurement | None = None
        peer: Peer | None = None
        if (folder / OURS).exists():
            ours = measurement_from(json.loads((folder / OURS).read_text()))
        if (folder / PEER).exists():
            peer = peer_from(json.loads((folder / PEER).read_text()))
        elif ours is not None and settings.peers:
            peer = Peer(peer_version() or "", stopped or _last_line(log), None, None, None)
        return ZooRow(
            model=model.name,
            family=model.family,
            shapes=model.shapes,
            seed=settings.seed,
            skipped=stopped if ours is None else "",
            crashed=_last_line(log) if ours is None and not stopped else "",
            ours=ours,
            peer=peer,
            provenance=origin,
        )


def _start(model: ZooModel, settings: ZooSettings, folder: Path, log: Path) -> BaseProcess:
    # A server that has imported everything once forks the workers: imports take longer than most
    # networks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    job = Job(
        model.name,
        folder,
        log,
        settings.seed,
        settings.threads,
        settings.repetitions,
        settings.peers,
    )
    worker = context.Process(target=work, args=(job,))
    worker.start()
    return worker


def _watch(worker: BaseProcess, ours: Path, settings: ZooSettings) -> str:
    """Wait for a worker, and stop it where it takes too much; returns why it was stopped, or ""."""
    begin, peer_begin = time.monotonic(), None
    try:
        while worker.is_alive():
            now = time.monotonic()
            if peer_begin is None and ours.exists():
                peer_begin = now
            if _resident_gib(worker.pid or 0) > settings.memory_gib:
                return f"stopped: more than {settings.memory_gib:g} GiB of memory"
            if peer_begin is None and now - begin > settings.seconds:
                return f"stopped: more than {settings.seconds:g} s"
            if peer_begin is not None and now - peer_begin > settings.peer_seconds:
                return f"stopped: more than {settings.peer_seconds:g} s"
            worker.join(0.05)
    finally:
        if worker.is_alive():
            worker.kill()
        worker.join()
    return ""


def _resident_gib(process: int) -> float:
    """Resident memory where the system has /proc, else 0: there is no limit then."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**30


def _last_line(log: Path) -> str:
    text = log.read_text(errors="replace") if log.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "the process died without a word"
