"""`cnnprune tasks`: list the registered tasks."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from pruning_env.tasks.registry import get_task, task_names

DESCRIPTION = "List the networks with images that can be pruned, those of plug-ins too."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table; exit code 0."""
    table = Table("task", "what it is", "search-val seen by the dense weights")
    for name in task_names():
        task = get_task(name)
        table.add_row(name, task.summary, "yes" if task.val_seen else "no")
    console.print(table)
    return 0
