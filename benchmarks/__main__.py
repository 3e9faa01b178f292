"""`python -m benchmarks`: one subcommand per question. Parses arguments and nothing else."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.ablation.command import add_ablation_command
from benchmarks.agents.command import add_agents_command
from benchmarks.agents.figures_command import add_figures_commands
from benchmarks.clients.command import add_clients_command
from benchmarks.constrained.command import add_constrained_command
from benchmarks.demo import DemoSettings, run_demo
from benchmarks.latency.command import add_latency_command
from benchmarks.proxies.command import add_proxies_command
from benchmarks.report.command import add_report_command
from benchmarks.reproduce.command import add_after_training_command, add_reproduce_command
from benchmarks.soak import add_soak_command
from benchmarks.speed.command import add_speed_command
from benchmarks.state.command import add_state_command
from benchmarks.training.command import add_train_command
from benchmarks.worlds.command import add_worlds_command
from benchmarks.zoo.command import add_commands
from pruning_agents.cli.main import add_command
from pruning_env.tasks.registry import task_names

LEADERBOARD = Path("benchmarks/LEADERBOARD.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit code (2: bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo", help="dense, uniform, random search and RLPruner at the same number of evaluations"
    )
    defaults = DemoSettings()
    demo.add_argument("--task", default=defaults.task, choices=task_names())
    demo.add_argument(
        "--evaluations", type=_positive, default=defaults.evaluations, help="default: %(default)s"
    )
    demo.add_argument("--seed", type=_not_negative, default=defaults.seed, help="first seed")
    demo.add_argument(
        "--seeds", type=_positive, default=defaults.seeds, help="how many (default: %(default)s)"
    )
    demo.add_argument("--out", type=Path, default=defaults.out, help="default: %(default)s")
    demo.add_argument("--data-root", help="folder that holds the data sets")
    demo.add_argument("--device", default=defaults.device, help="default: %(default)s")
    demo.add_argument(
        "--threads",
        type=_positive,
        default=1,
        help="threads of torch; more only help on networks larger than the default "
        "(default: %(default)s)",
    )
    add_commands(commands)
    add_speed_command(commands)
    add_latency_command(commands)
    add_agents_command(commands)
    add_state_command(commands)
    add_ablation_command(commands)
    _add_checks(commands)
    add_figures_commands(commands)
    add_constrained_command(commands)
    add_proxies_command(commands)
    add_worlds_command(commands)
    add_report_command(commands)
    add_clients_command(commands)
    add_soak_command(commands)
    add_train_command(commands)
    add_reproduce_command(commands)
    add_after_training_command(commands)
    options = vars(parser.parse_args(arguments))
    del options["command"]
    command = shlex.join(["python", "-m", "benchmarks", *arguments])
    if "run" in options:
        try:
            return options.pop("run")(options, command, Console())
        except ValueError as error:
            parser.exit(2, f"python -m benchmarks: error: {error}\n")
    torch.set_num_threads(options.pop("threads"))
    try:
        run_demo(DemoSettings(**options), command, _console())
    except FileNotFoundError as error:
        parser.exit(2, f"python -m benchmarks: error: {error}\n")
    return 0


def _add_checks(commands: Any) -> None:
    """The commands of `cnnprune` that read rows, under the name that they had first."""
    for name in ("compare", "validate", "leaderboard"):
        parser = add_command(commands, name)
        run = parser.get_default("run")
        parser.set_defaults(run=partial(_run_check, run))
        if name == "leaderboard":
            parser.set_defaults(out=LEADERBOARD)


def _run_check(
    run: Callable[[argparse.Namespace, Console], int],
    options: dict[str, Any],
    command: str,
    console: Console,
) -> int:
    return run(argparse.Namespace(**options, command_line=command), console)


def _console() -> Console:
    """Into a file or pipe, rich would squeeze tables into 80 columns."""
    console = Console()
    return console if console.is_terminal else Console(width=110)


def _not_negative(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
