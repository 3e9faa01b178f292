"""The arguments of `python -m benchmarks proxies`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.agents.command import positive
from benchmarks.proxies.figure import plot_proxies
from benchmarks.proxies.rows import read_rows
from benchmarks.proxies.run import run
from benchmarks.proxies.specification import SMOKE, STUDIES
from benchmarks.proxies.table import by_budget, to_markdown
from pruning_env.files import atomic_write


def add_proxies_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "proxies",
        help="how much each reward is worth: what it says of a network before training",
        description="Judge 24 networks at each of two budgets by every reward, train each, and "
        "say how well the order before agrees with the order after. Networks that have a row are "
        "left out, so the same command goes on after a kill.",
    )
    parser.add_argument(
        "--task", choices=list(STUDIES), default=next(iter(STUDIES)), help="default: %(default)s"
    )
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--networks", type=positive, metavar="N", help="at most so many")
    parser.add_argument("--threads", type=positive, default=1, help="of torch (default: 1)")
    parser.add_argument("--smoke", action="store_true", help="six networks of a small task")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/proxies.jsonl"),
        help="rows, to which those that are missing are added; table and figure go beside it "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    torch.set_num_threads(options["threads"])
    out: Path = options["out"]
    out.parent.mkdir(parents=True, exist_ok=True)
    study = SMOKE if options["smoke"] else STUDIES[options["task"]]
    try:
        for row in run(
            study,
            out,
            command,
            data_root=options["data_root"],
            device=options["device"],
            networks=options["networks"],
            progress=console.is_terminal,
        ):
            said = ", ".join(f"{name} {100 * p.accuracy:.1f}" for name, p in row.proxies.items())
            console.print(
                f"{row.allocation.slug}: {said}; trained {100 * row.test_accuracy:.2f} % on test, "
                f"{row.minutes:.1f} minutes",
                highlight=False,
                soft_wrap=True,
            )
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    rows = list(read_rows(out).values())
    atomic_write(out.with_suffix(".md"), to_markdown(rows))
    if any(len(own) >= 3 for own in by_budget(rows).values()):
        plot_proxies(rows, out.with_suffix(""))
    return 0
