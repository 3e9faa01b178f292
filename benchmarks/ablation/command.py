"""The arguments of `python -m benchmarks ablation`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.ablation.ranking import measure
from benchmarks.ablation.ranking import to_markdown as ranking_to_markdown
from benchmarks.ablation.run import read_rows, run
from benchmarks.ablation.table import to_markdown
from benchmarks.ablation.variants import TRANSITIONS
from benchmarks.agents.command import positive
from pruning_env.files import atomic_write
from pruning_env.tasks.registry import task_names


def add_ablation_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "ablation",
        help="RL-Pruner as published, by our default, and each part of ours alone, on the solved "
        "tier",
    )
    parser.add_argument(
        "--ranking",
        metavar="TASK",
        choices=task_names(),
        help="instead: what ranking channels anew is worth on a task; a table at --out",
    )
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument("--seeds", type=positive, default=20, help="how many (default: 20)")
    parser.add_argument(
        "--transitions",
        type=positive,
        default=TRANSITIONS,
        help="candidates and commits of a search (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/ablation.jsonl"),
        help="rows, to which those that are missing are added; the table goes beside it (default: "
        "%(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    out: Path = options["out"]
    out.parent.mkdir(parents=True, exist_ok=True)
    task = options["ranking"]
    if task is not None:
        ends = []
        for end in measure(task, options["data_root"]):
            console.print(end, highlight=False, soft_wrap=True)
            ends.append(end)
        atomic_write(out.with_suffix(".md"), ranking_to_markdown(task, ends, command))
        return 0
    for row in run(out, options["seeds"], command, options["transitions"]):
        found = "nothing" if row.regret is None else f"regret {row.regret:.3f}"
        console.print(f"{row.variant}, seed {row.seed}: {found}", highlight=False)
    rows = list(read_rows(out).values())
    atomic_write(out.with_suffix(".md"), to_markdown(rows))
    return 0
