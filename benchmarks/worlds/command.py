"""The arguments of `python -m benchmarks worlds`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.agents.command import positive
from benchmarks.worlds.rows import read_rows
from benchmarks.worlds.run import run
from benchmarks.worlds.specification import Study
from benchmarks.worlds.table import to_markdown
from pruning_agents.cli.arguments import whole_number
from pruning_agents.search.rows import provenance
from pruning_env.files import atomic_write


def add_worlds_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    default = Study()
    parser: argparse.ArgumentParser = commands.add_parser(
        "worlds",
        help="policies on networks that they never saw, against rules of thumb and searches",
        description="Train policies on the networks of one pool, by imitation of searches and by "
        "PPO, and judge them without evaluations on two other pools, beside rules of thumb and "
        "searches. What has a row is left out, so the same command goes on after a kill.",
    )
    parser.add_argument(
        "--train",
        type=whole_number,
        default=default.train,
        metavar="N",
        help="networks to learn on; 0 for no policies (default: %(default)s)",
    )
    parser.add_argument(
        "--judged",
        type=positive,
        default=default.judged,
        metavar="N",
        help="networks of each other pool (default: %(default)s)",
    )
    parser.add_argument(
        "--demonstrations",
        type=positive,
        default=default.demonstrations,
        metavar="N",
        help="evaluations of each search that is imitated (default: %(default)s)",
    )
    parser.add_argument(
        "--episodes",
        type=positive,
        default=default.episodes,
        metavar="N",
        help="of PPO (default: %(default)s)",
    )
    parser.add_argument(
        "--searches",
        nargs="*",
        default=list(default.searches),
        metavar="AGENT",
        help=f"to compare with (default: {' '.join(default.searches)})",
    )
    parser.add_argument(
        "--evaluations",
        nargs="+",
        type=positive,
        default=list(default.evaluations),
        metavar="N",
        help="of these searches (default: 10 50 200)",
    )
    parser.add_argument(
        "--seeds", type=positive, default=default.seeds, help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/worlds.jsonl"),
        help="rows, to which those that are missing are added; the table goes beside it, and "
        "demonstrations and policies into a folder of that name (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    out: Path = options["out"]
    study = Study(
        train=options["train"],
        judged=options["judged"],
        demonstrations=options["demonstrations"],
        episodes=options["episodes"],
        searches=tuple(options["searches"]),
        evaluations=tuple(options["evaluations"]),
        seeds=options["seeds"],
    )
    for _ in run(study, out, provenance(command), progress=console.is_terminal):
        pass
    rows = list(read_rows(out).values())
    table = to_markdown(rows)
    atomic_write(out.with_suffix(".md"), table)
    console.print(table, highlight=False, soft_wrap=True, markup=False)
    return 0
