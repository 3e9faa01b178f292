"""The arguments of `python -m benchmarks agents`; the work is done elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.agents.run import AgentsSettings, run_agents


def add_agents_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "agents",
        help="any agents on any tasks with the same evaluations: rows, table and figure",
    )
    defaults = AgentsSettings()
    parser.add_argument(
        "--tasks",
        type=_names,
        default=defaults.tasks,
        metavar="A,B",
        help='"tabular", of which everything is known, and registered tasks (default: tabular)',
    )
    parser.add_argument(
        "--agents",
        type=_names,
        default=(),
        metavar="A,B",
        help="registered agents, and functions and classes as module:name (default: all "
        "registered)",
    )
    parser.add_argument("--seeds", type=_positive, default=defaults.seeds, help="how many")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the first of them")
    parser.add_argument(
        "--evaluations",
        type=_positive,
        default=defaults.evaluations,
        help="per search, counted by the environment (default: %(default)s)",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="AGENT=N",
        help="fewer evaluations for an agent that takes long; may be repeated",
    )
    parser.add_argument(
        "--budget",
        type=_ratio,
        action="append",
        default=[],
        metavar="NAME=RATIO",
        help="limit relative to the dense network; may be repeated (default: params=0.25)",
    )
    parser.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a further argument of the environments, in JSON or as text; may be repeated",
    )
    parser.add_argument(
        "--workers", type=_positive, default=defaults.workers, help="processes (default: 1)"
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out what has a row in --out; otherwise its row is replaced",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    budget = dict(options.pop("budget")) or {"params": 0.25}
    options["settings"] = {"budget": budget, **dict(options.pop("set"))}
    options["limits"] = dict(options.pop("limit"))
    run_agents(AgentsSettings(**options), command, console)
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _limit(text: str) -> tuple[str, int]:
    name, number = _pair(text)
    return name, _positive(number)


def _ratio(text: str) -> tuple[str, float]:
    name, number = _pair(text)
    try:
        return name, float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=RATIO such as macs=0.5") from None


def _setting(text: str) -> tuple[str, Any]:
    name, value = _pair(text)
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.rpartition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value
