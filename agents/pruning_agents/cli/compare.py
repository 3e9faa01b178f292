"""`cnnprune compare`: two files of rows, pair by pair."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from pruning_agents.cli.arguments import BadInput, positive_int
from pruning_agents.comparison.compare import compare
from pruning_agents.comparison.rows import rows_of_files

DESCRIPTION = (
    "Paired differences between rows of the same task, settings, seed and evaluations, with 95 % "
    "bootstrap intervals, and what may be said of them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files, and who is compared."""
    rows = "a file of rows, the result.json of `cnnprune train`, or a folder that holds some"
    parser.add_argument("first", type=Path, metavar="A", help=rows)
    parser.add_argument("second", type=Path, metavar="B", help="likewise")
    parser.add_argument(
        "--agents",
        type=_two,
        metavar="X,Y",
        help="X of the first file against Y of the second (default: every agent that is in both; "
        "where each file has one agent, these two)",
    )
    parser.add_argument(
        "--at",
        type=positive_int,
        metavar="N",
        help="compare incumbents after N evaluations (default: all that were allowed)",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Print a line per question; exit code 0."""
    labels = (options.first.name, options.second.name)
    if labels[0] == labels[1]:
        labels = (str(options.first), str(options.second))
    try:
        first, second = rows_of_files([options.first]), rows_of_files([options.second])
        lines = [*map(str, compare(first, second, options.agents, options.at, labels))]
    except ValueError as error:
        raise BadInput(str(error)) from error
    lines.append(
        "Intervals: 95 % percentile bootstrap over pairs, seeded, each on its own: nothing is "
        "corrected for several comparisons. Not distinguishable does not mean equal."
    )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    return 0


def _two(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not two agents such as cem,rl-pruner")
    return names[0], names[1]
