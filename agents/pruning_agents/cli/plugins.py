"""Commands that other packages add to `cnnprune`.

A distribution names them in the entry point group `cnnprune.commands`: a name, and a function that
takes the arguments, the name first, and returns the exit code. So the commands of the benchmarks,
which need this package, are found without this package needing them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points

from pruning_agents.cli.options import BadInput

GROUP = "cnnprune.commands"


def extra_commands() -> Mapping[str, EntryPoint]:
    """What is installed, by name; nothing of it is imported."""
    return {point.name: point for point in entry_points(group=GROUP)}


def run_extra(point: EntryPoint, arguments: Sequence[str]) -> int:
    """Import a command and run it with its arguments, its name first.

    Raises:
        BadInput: what it needs is not installed.
    """
    try:
        command = point.load()
    except ImportError as error:
        raise BadInput(
            f"this command is in {point.module}, which cannot be imported ({error}); the commands "
            "of the benchmarks need a checkout of the project, in whose root "
            f"`python -m benchmarks {point.name}` does the same"
        ) from error
    return int(command(list(arguments)))
