"""`cnnprune agents`: list the registered agents."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from pruning_agents.search.registry import agent_summaries

DESCRIPTION = "List who can search: `cnnprune train --agent NAME`."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """It takes none."""


def run(options: argparse.Namespace, console: Console) -> int:
    """Print the table; exit code 0."""
    table = Table("agent", "what it does")
    for name, summary in agent_summaries().items():
        table.add_row(name, summary)
    console.print(table)
    return 0
