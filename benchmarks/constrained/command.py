"""The arguments of `python -m benchmarks constrained`, and the loop over what is missing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tqdm import tqdm

from benchmarks.constrained.figure import plot_constrained
from benchmarks.constrained.rows import FIXED, LAGRANGIAN, ConstrainedRow, read_rows, run_key
from benchmarks.constrained.table import to_markdown
from benchmarks.constrained.training import Run
from pruning_agents.search.rows import append_row, provenance
from pruning_env.files import atomic_write


@dataclass(frozen=True)
class ConstrainedSettings:
    """What to run, and where to write.

    Attributes:
        budgets: limits on parameters / dense, in (0, 1].
        prices: fixed prices, for the frontier; see `ConstrainedRow.number`.
        seeds: number of consecutive seeds per budget.
        price_seeds: and per price.
        seed: the first of them.
        rollouts: of each training; None for as many as the settings say.
        out: file of rows; table and figures go beside it.
        resume: leave out what has a row.
    """

    budgets: tuple[float, ...] = (0.1, 0.2, 0.4)
    prices: tuple[float, ...] = (0.0, 2.0, 5.0, 12.0, 30.0, 80.0, 150.0, 250.0, 400.0, 600.0)
    seeds: int = 20
    price_seeds: int = 2
    seed: int = 0
    rollouts: int | None = None
    out: Path = Path("runs/constrained.jsonl")
    resume: bool = True


def plan(settings: ConstrainedSettings) -> list[Run]:
    """The runs asked for, seed by seed, so that a run cut short has the same seeds of each.

    Raises:
        ValueError: a budget outside (0, 1], or a price below 0.
    """
    for budget in settings.budgets:
        if not 0.0 < budget <= 1.0:
            raise ValueError(f"budgets: {budget} is not allowed; give numbers in (0, 1]")
    for price in settings.prices:
        if not price >= 0.0:
            raise ValueError(f"prices: {price} is not allowed; give numbers of at least 0")
    return [
        Run(method, number, settings.seed + place, settings.rollouts)
        for place in range(max(settings.seeds, settings.price_seeds))
        for method, numbers, seeds in (
            (LAGRANGIAN, settings.budgets, settings.seeds),
            (FIXED, settings.prices, settings.price_seeds),
        )
        if place < seeds
        for number in numbers
    ]


def run_constrained(
    settings: ConstrainedSettings, command: str, console: Console
) -> tuple[ConstrainedRow, ...]:
    """Run what is missing, appending each row at once; write table and figure; return these rows.

    Raises:
        ValueError: as `plan`; nothing has run then.
    """
    runs = plan(settings)
    rows = read_rows(settings.out)
    keys = [run_key(run.method, run.number, run.seed, run.settings) for run in runs]
    missing = [
        run for run, key in zip(runs, keys, strict=True) if not settings.resume or key not in rows
    ]
    console.print(
        f"{len(runs)} runs, {len(runs) - len(missing)} of them in {settings.out} already",
        highlight=False,
        soft_wrap=True,
    )
    torch.set_num_threads(1)  # networks this small are slower with more
    origin = provenance(command)
    for run in tqdm(missing, unit="run"):
        append_row(settings.out, run.execute(origin))
    rows = read_rows(settings.out)
    asked = tuple(rows[key] for key in keys)
    atomic_write(settings.out.with_suffix(".md"), to_markdown(asked, settings.out.stem))
    if any(row.method == LAGRANGIAN for row in asked):
        plot_constrained(asked, settings.out.with_suffix(""))
    console.print(f"Written beside {settings.out}: table and figure", soft_wrap=True)
    return asked


def add_constrained_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "constrained",
        help="PPOLagrangian against limits and the frontier, where the best is known",
    )
    defaults = ConstrainedSettings()
    parser.add_argument(
        "--budgets",
        type=_numbers,
        default=defaults.budgets,
        metavar="A,B",
        help="limits on parameters / dense (default: %(default)s)",
    )
    parser.add_argument(
        "--prices",
        type=_numbers,
        default=defaults.prices,
        metavar="A,B",
        help="fixed prices of all parameters, in percentage points of accuracy, for plain PPO "
        "(default: %(default)s)",
    )
    parser.add_argument("--seeds", type=int, default=defaults.seeds, help="per budget")
    parser.add_argument("--price-seeds", type=int, default=defaults.price_seeds, help="per price")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="the first of them")
    parser.add_argument(
        "--rollouts", type=int, default=None, help="of each training (default: the settings')"
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
    run_constrained(ConstrainedSettings(**options), command, console)
    return 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        numbers: Sequence[float] = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None
    return tuple(numbers)
