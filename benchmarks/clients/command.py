"""The arguments of `python -m benchmarks clients`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.clients.run import ClientsSettings, run_clients


def add_clients_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "clients",
        help="TorchRL, tianshou, RLlib and others on both environments, each in a virtual "
        "environment of its own; needs a package index",
    )
    defaults = ClientsSettings()
    parser.add_argument(
        "--clients",
        type=lambda text: tuple(name.strip() for name in text.split(",") if name.strip()),
        default=(),
        metavar="A,B",
        help="default: all",
    )
    parser.add_argument("--folder", type=Path, default=defaults.folder, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=defaults.out, help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out what has a row without an error in --out",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    return run_clients(ClientsSettings(**options), command, console)
