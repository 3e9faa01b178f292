"""Run the cells that are missing, one process each at a time, and keep their rows.

Whoever kills it loses what the workers were at and nothing else: the next run goes on with what has
no row. Nothing here knows what an agent does or what a row says.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tqdm import tqdm

from agents.guests import resolve_agent
from agents.registry import agent_names
from agents.rows import provenance
from benchmarks.agents.cells import TABULAR, Cell, make_env, run_cell
from benchmarks.agents.figure import plot_agents
from benchmarks.agents.rows import AgentRow, append_row, read_rows
from benchmarks.agents.table import to_markdown
from pruning_env.files import atomic_write


@dataclass(frozen=True)
class AgentsSettings:
    """What to run, and where to write.

    Attributes:
        tasks: "tabular" and registered tasks.
        agents: registered names and "module:name"; empty for all that are registered.
        seeds: number of consecutive seeds; agents that no seed changes are run with the first.
        seed: the first.
        evaluations: that a search may spend.
        limits: by agent, fewer for those that are slow themselves; the table says so.
        settings: keyword arguments of the environments.
        workers: processes.
        out: file of rows; table and figures go beside it. Rows of other cells stay.
        resume: leave out cells that have a row without a failure.
    """

    tasks: tuple[str, ...] = (TABULAR,)
    agents: tuple[str, ...] = ()
    seeds: int = 20
    seed: int = 0
    evaluations: int = 2000
    limits: Mapping[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"budget": {"params": 0.25}})
    workers: int = 1
    out: Path = Path("runs/agents.jsonl")
    resume: bool = True


def run_agents(settings: AgentsSettings, command: str, console: Console) -> tuple[AgentRow, ...]:
    """Run what is missing, appending each row at once; write table and figure; return all rows.

    Raises:
        ValueError: for an unknown agent or task, or settings that an environment refuses; nothing
            has run then.
    """
    cells = plan(settings)
    rows = read_rows(settings.out)
    done = {key for key, row in rows.items() if not row.failed} if settings.resume else set()
    missing = [cell for cell in cells if cell.key not in done]
    console.print(
        f"{len(cells)} cells, {len(cells) - len(missing)} of them in {settings.out} already",
        highlight=False,
        soft_wrap=True,
    )
    if missing:
        for row in _rows_of(missing, settings, command):
            before = rows.get(row.key)
            if before is None or not row.failed or row.failed != before.failed:
                append_row(settings.out, row)
            if row.failed:
                console.print(
                    f"{row.agent}, {row.task}, seed {row.seed}: {row.failed}",
                    highlight=False,
                    markup=False,
                    soft_wrap=True,
                )
    ordered = tuple(read_rows(settings.out).values())
    atomic_write(settings.out.with_suffix(".md"), to_markdown(ordered, settings.out.stem))
    plot_agents(ordered, settings.out.with_suffix(""))
    console.print(f"Written beside {settings.out}: table and figures", soft_wrap=True)
    return ordered


def plan(settings: AgentsSettings) -> list[Cell]:
    """The cells asked for, seed by seed, so that a run cut short has paired seeds.

    Raises:
        ValueError: as `run_agents`.
    """
    names = settings.agents or agent_names()
    entries = {name: resolve_agent(name) for name in names}
    strangers = [name for name in settings.limits if name not in entries]
    if strangers:
        raise ValueError(f"limits={strangers!r}: not among the agents {', '.join(names)}")
    for task in settings.tasks:
        make_env(task, settings.settings).close()
    return [
        Cell(
            task,
            settings.settings,
            name,
            seed,
            min(settings.limits.get(name, settings.evaluations), settings.evaluations),
        )
        for seed in range(settings.seed, settings.seed + settings.seeds)
        for task in settings.tasks
        for name, entry in entries.items()
        if entry.seeded or seed == settings.seed
    ]


def _rows_of(cells: Sequence[Cell], settings: AgentsSettings, command: str) -> Iterator[AgentRow]:
    """Rows in the order in which they are done."""
    # A server that has imported everything once forks the workers, none of which inherits threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run_cell.__module__])
    with (
        ProcessPoolExecutor(min(settings.workers, len(cells)), context, _prepare_worker) as pool,
        tqdm(total=len(cells), desc="cells", unit="cell") as bar,
    ):
        # Asked in a worker: it says with how many threads the rows are made.
        device = settings.settings.get("device", "cpu")
        origin = pool.submit(provenance, command, device).result()
        futures: list[Future[AgentRow]] = [pool.submit(run_cell, cell, origin) for cell in cells]
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool as error:
                    raise RuntimeError(
                        "a worker was killed, perhaps for its memory; rows so far are kept, and "
                        "the same command goes on from there"
                    ) from error
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare_worker() -> None:
    """One thread of torch; and no life after the run, which when killed cannot say that it ends."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
