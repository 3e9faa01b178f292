"""The arguments of `python -m benchmarks zoo` and `surgery`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.zoo.catalogue import FAMILIES
from benchmarks.zoo.run import ZooSettings, run_zoo
from benchmarks.zoo.surgery import SurgerySettings, run_surgery


def add_commands(commands: Any) -> None:
    """Add both to the subcommands of a parser; each sets `run(options, command, console)`."""
    zoo = commands.add_parser(
        "zoo", help="trace, prune and check every network we can find, each in its own process"
    )
    defaults = ZooSettings()
    zoo.add_argument("--models", type=_names, default=(), metavar="A,B", help="default: all")
    zoo.add_argument(
        "--families",
        type=_names,
        default=defaults.families,
        metavar="A,B",
        help=f"of {', '.join(FAMILIES)} (default: all that are installed)",
    )
    zoo.add_argument("--peers", action="store_true", help="measure Torch-Pruning beside it")
    zoo.add_argument(
        "--resume", action="store_true", help="leave out what has a row without failures"
    )
    _add_options(zoo, defaults, "threads", "repetitions", "seconds", "peer_seconds", "memory_gib")
    zoo.set_defaults(run=_run_zoo)

    surgery = commands.add_parser(
        "surgery", help="milliseconds per candidate, ours against Torch-Pruning's, in turns"
    )
    limits = SurgerySettings()
    surgery.add_argument("--models", type=_names, default=limits.models, metavar="A,B")
    surgery.add_argument("--threads", type=_numbers, default=limits.threads, metavar="N,M")
    _add_options(surgery, limits, "repetitions", "seconds")
    surgery.set_defaults(run=_run_surgery)


def _add_options(parser: argparse.ArgumentParser, defaults: object, *names: str) -> None:
    for name in names:
        value = getattr(defaults, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(value),
            default=value,
            help="default: %(default)s",
        )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    out = getattr(defaults, "out")  # noqa: B009  (both kinds of settings have it)
    parser.add_argument("--out", type=Path, default=out, help="default: %(default)s")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not N,M such as 1,2") from None


def _run_zoo(options: dict[str, Any], command: str, console: Console) -> int:
    rows = run_zoo(ZooSettings(**options), command, console)
    return 1 if any(row.failures() for row in rows) else 0


def _run_surgery(options: dict[str, Any], command: str, console: Console) -> int:
    run_surgery(SurgerySettings(**options), command, console)
    return 0
