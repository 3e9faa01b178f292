"""`cnnprune leaderboard`: agents by task, from rows that replay and no others."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from pruning_agents.cli.arguments import BadInput, whole_number
from pruning_agents.comparison.leaderboard import to_markdown
from pruning_agents.comparison.replay import replay_with_progress
from pruning_agents.comparison.rerun import rerun
from pruning_agents.comparison.rows import rows_of_files
from pruning_env.files import atomic_write

DESCRIPTION = "Replay rows and write a ranking of the agents on each task, as Markdown."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files of rows, and where the ranking goes."""
    parser.add_argument(
        "rows",
        type=Path,
        nargs="+",
        metavar="ROWS",
        help="a file of rows, the result.json of `cnnprune train`, or a folder that holds some",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("LEADERBOARD.md"), help="default: %(default)s"
    )
    parser.add_argument(
        "--rerun",
        type=whole_number,
        default=1,
        metavar="SEEDS",
        help="searches of each registered agent on the solved tier that are run again, some "
        "seconds each; default: %(default)s",
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Write the file and say how many rows were left out; exit code 0."""
    try:
        verdicts = replay_with_progress(rows_of_files(options.rows))
    except ValueError as error:
        raise BadInput(str(error)) from error
    verdicts = rerun(verdicts, options.rerun, progress_bar=True)
    atomic_write(options.out, to_markdown(verdicts, options.command_line))
    refused = sum(bool(verdict.problems) for verdict in verdicts)
    console.print(
        f"Written to {options.out}; {refused} rows left out that do not replay",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return 0
