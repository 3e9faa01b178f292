"""The command line `cnnprune`: which commands there are, and what their exit codes mean.

Each command is a module of this room with a `DESCRIPTION`, `add_arguments(parser)` and
`run(options, console)`; only the one that is asked for is imported, so that help and listings come
at once. Bad input ends with exit code 2 and a message that names the argument; a search that meets
no budget ends with 1, a disk that is full with 3.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console

from pruning_agents.cli.arguments import BadInput

#: One line on each command, by its name, which is that of its module too.
COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "train": "search with an agent and write what it found",
        "prune": "prune once, without a search",
        "compress": "the whole way: sensitivity, search, fine-tuning, test, export, a report",
        "sensitivity": "show what pruning each group of channels alone costs",
        "finetune": "train a saved pruned model with the dense one as its teacher",
        "evaluate": "judge a saved pruned model",
        "export": "write a saved pruned model as ONNX, for torch.export, or int8",
        "graph": "show which layers lose channels together, and what is frozen and why",
        "profile": "show where the time of an environment's step goes",
        "compare": "two files of rows, pair by pair: the difference and its interval",
        "validate": "replay rows from their channel counts; exit code 1 if one does not come out",
        "leaderboard": "rank agents by task, from rows that replay and no others",
        "tasks": "list the registered tasks",
        "pool": "make a pool of small trained networks for CNNPruneWorlds-v0",
        "agents": "list the registered agents",
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    0: done; 1: nothing feasible found; 2: bad input; 3: a file could not be written or read.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = parser_of(arguments[0] if arguments else None)
    options = options_of(parser, arguments)
    try:
        return options.run(options, Console())
    except BadInput as error:
        parser.exit(2, f"cnnprune {options.command}: error: {error}\n")
    except OSError as error:
        # Without a file it is no matter of the user's disk, and the traceback is needed.
        if error.filename is None:
            raise
        parser.exit(3, f"cnnprune {options.command}: error: {error}\n")


def options_of(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """What was typed, with the whole line as `command_line`; `run` is the command's function."""
    options = parser.parse_args(arguments)
    options.command_line = shlex.join(["cnnprune", *arguments])
    return options


def parser_of(command: str | None) -> argparse.ArgumentParser:
    """The parser of all commands, in which only `command` knows its arguments."""
    parser = argparse.ArgumentParser(
        prog="cnnprune", description="Search structured prunings of CNNs, and use what was found."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        if name == command:
            add_command(commands, name)
        else:
            commands.add_parser(name, help=COMMANDS[name])
    return parser


def add_command(commands: Any, name: str) -> argparse.ArgumentParser:
    """Add a command with its arguments to the subcommands of a parser."""
    module: Any = importlib.import_module(f"pruning_agents.cli.{name}")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=COMMANDS[name], description=module.DESCRIPTION
    )
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
    return parser
