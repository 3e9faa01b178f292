"""Run the cells that are missing, wherever an executor runs them, and keep their rows.

Whoever kills it loses what the workers were at and nothing else: the next run goes on with what has
no row. Nothing here knows what an agent does or what a row says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from benchmarks.agents.executors import Executor, LocalPool
from benchmarks.agents.results import write_results
from pruning_agents.comparison.cells import Cell, make_env
from pruning_agents.comparison.rows import TABULAR, AgentRow, read_rows
from pruning_agents.comparison.suites import place_of
from pruning_agents.search.import_path import resolve_agent
from pruning_agents.search.registry import agent_names
from pruning_agents.search.rows import append_row
from pruning_env.suites import get_suite


@dataclass(frozen=True)
class AgentsSettings:
    """What to run, and where to write.

    Attributes:
        suite: name of a suite, which says tasks, settings, evaluations and seeds instead.
        tasks: "tabular" and registered tasks.
        agents: registered names and "module:name"; empty for all that are registered.
        seeds: number of consecutive seeds; agents that no seed changes are run with the first.
        seed: the first.
        evaluations: that a search may spend.
        limits: by agent, fewer for those that are slow themselves; the table says so.
        settings: keyword arguments of the environments.
        executor: who runs the cells.
        out: file of rows; table and figures go beside it. Rows of other cells stay.
        resume: leave out cells that have a row without a failure.
    """

    suite: str | None = None
    tasks: tuple[str, ...] = (TABULAR,)
    agents: tuple[str, ...] = ()
    seeds: int = 20
    seed: int = 0
    evaluations: int = 2000
    limits: Mapping[str, int] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=lambda: {"budget": {"params": 0.25}})
    executor: Executor = field(default_factory=LocalPool)
    out: Path = Path("runs/agents.jsonl")
    resume: bool = True


def run_agents(settings: AgentsSettings, command: str, console: Console) -> tuple[AgentRow, ...]:
    """Run what is missing, appending each row at once; write table and figure; return all rows.

    Raises:
        ValueError: for an unknown agent, task or suite, or settings that an environment refuses;
            nothing has run then.
        RuntimeError: as `Executor.rows`.
    """
    cells = plan(settings)
    device = settings.settings.get("device", "cpu")
    settings.executor.check(device)
    rows = read_rows(settings.out)
    done = {key for key, row in rows.items() if not row.failed} if settings.resume else set()
    missing = [cell for cell in cells if cell.key not in done]
    console.print(
        f"{len(cells)} cells, {len(cells) - len(missing)} of them in {settings.out} already",
        highlight=False,
        soft_wrap=True,
    )
    if missing:
        running = settings.executor.rows(missing, command, device)
        for row in tqdm(running, total=len(missing), desc="cells", unit="cell"):
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
    table, *_ = write_results(ordered, settings.out.with_suffix(""))
    console.print(table.read_text(), highlight=False, markup=False, soft_wrap=True)
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
    parts = _parts(settings)
    for part in parts:
        make_env(part.task, part.settings).close()
    return [
        Cell(
            part.task,
            part.settings,
            name,
            seed,
            min(settings.limits.get(name, part.evaluations), part.evaluations),
            settings.suite,
        )
        for seed in sorted({seed for part in parts for seed in part.seeds})
        for part in parts
        if seed in part.seeds
        for name, entry in entries.items()
        if entry.seeded or seed == part.seeds[0]
    ]


@dataclass(frozen=True)
class _Part:
    """One task with one kind of environment, and what is to be run there."""

    task: str
    settings: dict[str, Any]
    evaluations: int
    seeds: range


def _parts(settings: AgentsSettings) -> list[_Part]:
    if settings.suite is not None:
        problems = get_suite(settings.suite).problems
        return [_Part(*place_of(p), p.evaluations, range(p.seeds)) for p in problems]
    seeds = range(settings.seed, settings.seed + settings.seeds)
    tasks = dict.fromkeys(settings.tasks)
    return [_Part(task, settings.settings, settings.evaluations, seeds) for task in tasks]
