"""The arguments of `python -m benchmarks agents`; the work is done elsewhere."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.agents.executors import Executor, LocalPool
from benchmarks.agents.ray_tasks import RayTasks
from benchmarks.agents.run import AgentsSettings, run_agents
from pruning_env.suites import SUITES

#: What a suite says.
_ASKED = ("tasks", "seeds", "seed", "evaluations", "limit", "budget", "set")

#: `--ray` without an address: Ray looks for a cluster itself.
_ANY_CLUSTER = ""


def add_agents_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "agents",
        help="any agents on any tasks with the same evaluations: rows, table and figure",
    )
    defaults = AgentsSettings()
    parser.add_argument(
        "--suite",
        choices=list(SUITES),
        help="a frozen list of tasks, settings, evaluations and seeds, in place of the options for "
        "these",
    )
    parser.add_argument(
        "--tasks",
        type=_names,
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
    parser.add_argument("--seeds", type=positive, help=f"how many (default: {defaults.seeds})")
    parser.add_argument("--seed", type=int, help=f"the first of them (default: {defaults.seed})")
    parser.add_argument(
        "--evaluations",
        type=positive,
        help=f"per search, counted by the environment (default: {defaults.evaluations})",
    )
    parser.add_argument(
        "--limit",
        type=_limit,
        action="append",
        default=[],
        metavar="AGENT=N",
        help="fewer evaluations for an agent that takes long; may be repeated",
    )
    add_environment_arguments(parser)
    parser.add_argument("--workers", type=positive, help="processes of this machine (default: 1)")
    parser.add_argument(
        "--ray",
        nargs="?",
        const=_ANY_CLUSTER,
        metavar="ADDRESS",
        help="run the cells as tasks of a Ray cluster, one CPU each; without an address, of the "
        "one that $RAY_ADDRESS names or that runs here, or else of a new one; needs the extra: ray",
    )
    parser.add_argument(
        "--gpus-per-cell",
        type=float,
        metavar="N",
        help="of a Ray cluster, for each cell; a fraction such as 0.25 lets several share one "
        "(default: 0)",
    )
    parser.add_argument("--out", type=Path, default=defaults.out, help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="leave out what has a row in --out; otherwise its row is replaced",
    )
    parser.set_defaults(run=_run)


def add_environment_arguments(parser: argparse.ArgumentParser) -> None:
    """`--budget` and `--set`, which `environment_settings` reads."""
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


def environment_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of the environments; what they are made of is taken out of `options`."""
    budget = dict(options.pop("budget")) or {"params": 0.25}
    return {"budget": budget, **dict(options.pop("set"))}


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    if options["suite"] is not None:
        said = [name for name in _ASKED if options[name] not in (None, [])]
        if said:
            raise ValueError(
                f"--{said[0]} is not allowed with --suite {options['suite']}, which says it"
            )
    options["settings"] = environment_settings(options)
    options["limits"] = dict(options.pop("limit"))
    options["executor"] = _executor(*(options.pop(n) for n in ("workers", "ray", "gpus_per_cell")))
    given = {name: value for name, value in options.items() if value is not None}
    run_agents(AgentsSettings(**given), command, console)
    return 0


def _executor(workers: int | None, address: str | None, gpus: float | None) -> Executor:
    if address is None:
        if gpus is not None:
            raise ValueError(f"--gpus-per-cell={gpus} is for cells of a Ray cluster: add --ray")
        return LocalPool(workers or 1)
    if workers is not None:
        raise ValueError(f"--workers={workers} is for this machine; a Ray cluster has its own")
    return RayTasks(address or None, gpus or 0.0)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def positive(text: str) -> int:
    """A whole number of at least 1, as argparse wants it said."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _limit(text: str) -> tuple[str, int]:
    name, number = _pair(text)
    return name, positive(number)


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
