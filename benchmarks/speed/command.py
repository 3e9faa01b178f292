"""`python -m benchmarks speed`: runs what has no row yet, then writes table and figure."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.speed.questions import jobs
from benchmarks.speed.report import draw, to_markdown
from benchmarks.speed.rows import (
    QUESTIONS,
    SpeedRow,
    load_average,
    read_speed_rows,
    write_speed_rows,
)
from benchmarks.speed.settings import SpeedSettings
from benchmarks.zoo.peer import peer_version
from pruning_agents.search.rows import provenance
from pruning_env.files import atomic_write


def add_speed_command(commands: Any) -> None:
    """Add `speed` to the subcommands of a parser."""
    defaults = SpeedSettings()
    parser: argparse.ArgumentParser = commands.add_parser(
        "speed", help="a step against its floor, other libraries, and its own growth"
    )
    parser.add_argument(
        "--questions",
        type=_questions,
        default=QUESTIONS,
        metavar="A,B",
        help=f"some of {', '.join(QUESTIONS)} (default: all)",
    )
    parser.add_argument("--device", default=defaults.device, help="default: %(default)s")
    for name in ("rounds", "seed", "recovery_images", "threads"):
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            default=getattr(defaults, name),
            help="default: %(default)s",
        )
    parser.add_argument("--smoke", action="store_true", help="try the program on tiny sizes")
    parser.add_argument("--fresh", action="store_true", help="measure again what has a row")
    parser.add_argument("--out", type=Path, default=defaults.out, help="default: %(default)s")
    parser.set_defaults(run=_run)


def _questions(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = [name for name in chosen if name not in QUESTIONS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(QUESTIONS)}")
    return chosen


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    fresh = options.pop("fresh")
    settings = SpeedSettings(**options)
    run_speed(settings, command, console, fresh=fresh)
    return 0


def run_speed(
    settings: SpeedSettings, command: str, console: Console, *, fresh: bool = False
) -> tuple[SpeedRow, ...]:
    """Measure, write rows, table and figure; return the rows.

    A row is written as soon as it is there, and what has one is not measured again.
    """
    rows = {row.key: row for row in read_speed_rows(settings.out)}
    measured: set[tuple[str, str, str, bool]] = set()
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        origin = provenance(command, settings.device)
        versions = origin.versions | {"torch-pruning": peer_version() or "not installed"}
        origin = dataclasses.replace(origin, versions=versions)
        for question in settings.questions:
            if question == "peer" and peer_version() is None:
                console.print("torch-pruning is not installed: question 'peer' is left out")
                continue
            for subject, measurement in jobs(question, settings):
                key = (question, subject, settings.device, settings.smoke)
                if key in measured or (key in rows and not fresh):
                    continue
                load = load_average()
                figures = measurement()
                row = SpeedRow(
                    question=question,
                    subject=subject,
                    device=settings.device,
                    smoke=settings.smoke,
                    rounds=settings.turns,
                    seed=settings.seed,
                    load=load,
                    provenance=origin,
                    **dataclasses.asdict(figures),
                )
                rows[row.key] = row
                measured.add(key)
                write_speed_rows(settings.out, tuple(rows.values()))
                shown = ", ".join(f"{name} {value:.2f}" for name, value in row.ratios.items())
                console.print(f"{question} {subject}: {shown}", highlight=False, soft_wrap=True)
    finally:
        torch.set_num_threads(before)
    order = {name: place for place, name in enumerate(QUESTIONS)}
    own = [
        row for row in rows.values() if (row.device, row.smoke) == (settings.device, settings.smoke)
    ]
    own.sort(key=lambda row: order[row.question])
    atomic_write(settings.out.with_suffix(".md"), to_markdown(own))
    draw(own, settings.out.with_suffix(".png"))
    console.print(f"Written to {settings.out.with_suffix('.md')}", highlight=False, soft_wrap=True)
    return tuple(own)
