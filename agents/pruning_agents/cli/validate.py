"""`cnnprune validate`: does what rows say still come out?"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from pruning_agents.cli.arguments import BadInput
from pruning_agents.cli.task_options import add_task, task_of
from pruning_agents.comparison.replay import replay_with_progress
from pruning_agents.comparison.rows import rows_of_files

DESCRIPTION = (
    "Rebuild each row's network from its channel counts, judge it again and check accuracies, "
    "scores, parameters, MACs, hashes of weights and data, and that the pruned network says what "
    "the masked one says. Opens the test split for rows with a test accuracy. What rows cannot "
    "prove is how they were found."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The files of rows."""
    parser.add_argument(
        "rows",
        type=Path,
        nargs="+",
        metavar="ROWS",
        help="a file of rows, the result.json of `cnnprune train`, or a folder that holds some",
    )
    add_task(parser, None)


def run(options: argparse.Namespace, console: Console) -> int:
    """Print what does not come out; exit code 1 if there is such a row."""

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if options.network is not None or options.task is not None:
        task_of(options, "")  # so that rows of it can be replayed
    try:
        verdicts = replay_with_progress(rows_of_files(options.rows))
    except ValueError as error:
        raise BadInput(str(error)) from error
    for verdict in verdicts:
        row = verdict.row
        for problem in verdict.problems:
            say(f"{row.agent}, {row.task}, seed {row.seed}: {problem}")
    refused = sum(bool(verdict.problems) for verdict in verdicts)
    notes = [verdict.note for verdict in verdicts if verdict.note and not verdict.problems]
    for note in dict.fromkeys(notes):
        say(f"{notes.count(note)} rows: {note}")
    say(f"{sum(v.replays for v in verdicts)} of {len(verdicts)} rows replay")
    return 1 if refused else 0
