"""The arguments of `python -m benchmarks reproduce`; the work is done elsewhere."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.reproduce.after_training import AFTER_TRAINING
from benchmarks.reproduce.cell import RunContext, replay
from benchmarks.reproduce.cells import TABLES, plan, smoke_cells
from benchmarks.reproduce.estimate import RATES, cell_minutes, train_minutes
from benchmarks.reproduce.rows import read_rows
from benchmarks.reproduce.run import RunSettings, run_cells
from benchmarks.reproduce.specification import Cell
from benchmarks.training.recipes import RECIPES

#: Accuracy by which a replay on another device may differ: an image in a thousand.
_SAME = 1e-3


def add_reproduce_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "reproduce",
        help="a published table: search, recovery, test; resumable cell by cell",
        description="Run a published table (or `cpu`: the same chain on published CIFAR-10 "
        "weights, small) and write rows, weights and a table with the published numbers. Cells "
        "that have a row are left out, so the same command goes on after a kill.",
    )
    parser.add_argument("table", choices=TABLES)
    _add_arguments(parser)
    parser.set_defaults(run=_run)


def add_after_training_command(commands: Any) -> None:
    """Add the table that has a command of its own; as `add_reproduce_command`."""
    parser = commands.add_parser(
        AFTER_TRAINING,
        help="what is left of a search's gain once the pruned network is trained",
        description="Search or rule, reconstruct, fine-tune, certify: for each task, budget, "
        "method and seed. Cells that have a row are left out and an unfinished one goes on from "
        "its last epoch, so the same command goes on after a kill.",
    )
    _add_arguments(parser)
    parser.set_defaults(run=_run, table=AFTER_TRAINING)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path("runs/train"),
        help="folder in which `benchmarks train` left the dense networks (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/reproduce"), help="default: %(default)s"
    )
    parser.add_argument("--tasks", type=_names, default=(), metavar="A,B", help="default: all")
    parser.add_argument(
        "--methods", type=_names, default=(), metavar="A,B", help="agents (default: the table's)"
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="begin no cell after so many minutes"
    )
    parser.add_argument("--cells", type=int, metavar="N", help="run at most so many cells")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch (default: %(default)s)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--smoke", action="store_true", help="every kind of cell, tiny, on random images"
    )
    what.add_argument(
        "--estimate", action="store_true", help="say how long it will take, and do nothing"
    )
    what.add_argument(
        "--replay",
        action="store_true",
        help="judge the stored networks again and compare them with their rows",
    )


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    for name in ("seeds", "threads"):
        if options[name] < 1:
            raise ValueError(f"{name}={options[name]}: must be 1 or more.")
    torch.set_num_threads(options["threads"])
    table: str = options["table"]
    if options["smoke"]:
        cells = smoke_cells(table)
    else:
        cells = plan(
            table,
            seeds=range(options["seeds"]),
            tasks=options["tasks"],
            methods=options["methods"],
        )
    if options["estimate"]:
        _estimate(cells, options["device"], console)
        return 0
    context = RunContext(options["device"], options["data_root"], options["weights"])
    if options["replay"]:
        return _replay(table, options["out"], context, console)
    settings = RunSettings(options["out"], context, options["minutes"], options["cells"])
    try:
        run_cells(table, cells, settings, command, console)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    return 0


def _estimate(cells: Sequence[Cell], device: str, console: Console) -> None:
    """Say what training and cells are assumed to take."""
    lines = []
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    whole = 0.0
    for task in tasks:
        if task in RECIPES:
            minutes = train_minutes(task, RECIPES[task], device)
            whole += minutes
            lines.append(f"train {task}: {minutes:.0f} minutes")
    for (task, method), group in itertools.groupby(
        sorted(cells, key=lambda cell: (tasks.index(cell.task), cell.method)),
        key=lambda cell: (cell.task, cell.method),
    ):
        own = list(group)
        minutes = cell_minutes(own, device)
        whole += minutes
        lines.append(f"{task} {method}: {len(own)} cells, {minutes:.0f} minutes")
    rates = RATES["cpu" if device == "cpu" else "cuda"]
    lines.append(
        f"together {whole:.0f} minutes on {device}, if it does {rates.training:.1e} "
        "multiply-accumulates per second in training: an assumption, nothing was measured"
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _replay(table: str, out: Path, context: RunContext, console: Console) -> int:
    """Compare stored networks with their rows; 1 if one differs."""
    differing = 0
    for row in read_rows(out / f"{table}.jsonl").values():
        if row.pruned is None:
            continue
        folder = out / table / row.cell.slug
        try:
            measured = replay(row, folder, context)
        except (FileNotFoundError, ValueError) as error:
            console.print(f"not replayed: {error}", highlight=False, markup=False, soft_wrap=True)
            differing += 1
            continue
        same = abs(measured - row.pruned.test_accuracy) <= _SAME
        differing += not same
        console.print(
            f"{'same' if same else 'DIFFERS'}: {folder}, test {measured:.2%}, row "
            f"{row.pruned.test_accuracy:.2%}",
            highlight=False,
            soft_wrap=True,
        )
    return int(differing > 0)


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names nothing")
    return names
