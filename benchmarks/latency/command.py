"""`python -m benchmarks latency`: how well latency tables predict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.latency.run import LatencyRow, measure
from pruning_agents.cli.arguments import positive_int
from pruning_agents.search.rows import provenance
from pruning_env.evaluation.latency_table import CHECKED, FITTED
from pruning_env.evaluation.runtimes import RUNTIMES, Runtime
from pruning_env.files import atomic_write
from pruning_env.tasks.registry import task_names

__all__ = ["add_latency_command", "to_markdown"]


def add_latency_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "latency", help="latency tables: the error of their predictions, and widths that are slow"
    )
    parser.add_argument(
        "--tasks", nargs="+", choices=task_names(), default=["cifar10-resnet20"], metavar="TASK"
    )
    parser.add_argument(
        "--runtimes", nargs="+", choices=tuple(RUNTIMES), default=["eager", "onnxruntime"]
    )
    parser.add_argument("--batch", type=positive_int, default=1, help="default: %(default)s")
    parser.add_argument("--threads", type=positive_int, default=1, help="default: %(default)s")
    parser.add_argument(
        "--round-to",
        nargs="+",
        type=positive_int,
        default=[1, 8],
        metavar="N",
        help="widths are dense or multiples of N, a table for each (default: 1 8)",
    )
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/latency.jsonl"),
        help="rows; the page goes beside it (default: %(default)s)",
    )
    parser.add_argument(
        "--tables",
        type=Path,
        default=Path("runs/latency"),
        metavar="DIR",
        help="the latency tables, which are read and continued (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    torch.set_num_threads(options["threads"])
    origin = provenance(command)
    out: Path = options["out"]
    rows: list[LatencyRow] = []
    for task in options["tasks"]:
        for name in options["runtimes"]:
            runtime = Runtime(name, options["batch"], options["threads"])
            progress = not options["no_progress"]
            rounding = tuple(options["round_to"])
            for row in measure(task, runtime, rounding, options["tables"], origin, progress):
                rows.append(row)
                atomic_write(out, "".join(each.to_json() + "\n" for each in rows))
                atomic_write(out.with_suffix(".md"), to_markdown(rows))
                console.print(
                    f"{task}, {name}, round_to {row.round_to}: error {row.error:.1%}",
                    highlight=False,
                )
    return 0


def to_markdown(rows: Sequence[LatencyRow]) -> str:
    """Two tables, of errors and of widths, and how to read them."""
    first, origin = rows[0], rows[0].provenance
    errors = ["| network | runtime | round_to | error | margin | block | dense ms | table took |"]
    errors += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    widths = ["| network | runtime | channels per group | MACs | time / dense | 95 % |"]
    widths += ["| --- | --- | --- | ---: | ---: | ---: |"]
    for row in rows:
        errors.append(
            f"| {row.task} | {row.runtime} | {row.round_to} | {row.error:.1%} | {row.margin:.1%} | "
            f"{row.block} | {row.dense_ms:.2f} | {row.seconds:.0f} s |"
        )
    for row in {(row.task, row.runtime): row for row in rows}.values():
        for fewer, macs, ratio, low, high in row.halves:
            widths.append(
                f"| {row.task} | {row.runtime} | half{f' - {fewer}' if fewer else ''} | "
                f"{macs:.2f} | {ratio:.2f} | {low:.2f} to {high:.2f} |"
            )
    lines = [
        "# Latency tables",
        "",
        *errors,
        "",
        f"error: median of |predicted / timed - 1| over {CHECKED} random prunings that the formula "
        f"was not fitted to ({FITTED} others were). margin: 9 of 10 of these took at most so much "
        "more than predicted. block: multiples of channels that the formula found the runtime to "
        "want.",
        "",
        "## Widths",
        "",
        *widths,
        "",
        "Every group has half of its channels, or a few fewer. The ratio is of medians, of "
        "processor time where one thread computes; the interval is of the median ratio, by wall or "
        "processor time, whichever ratio is larger.",
        "",
        f"```bash\n{origin.command}\n```",
        "",
        f"Batch {first.batch}, {first.threads} threads, on {origin.hardware}; seed {first.seed}; "
        + ", ".join(f"{name} {version}" for name, version in origin.versions.items())
        + ".",
    ]
    return "\n".join(lines) + "\n"
