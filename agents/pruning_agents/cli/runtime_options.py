"""Arguments that say where networks are timed, and the words for how they were."""

from __future__ import annotations

import argparse
from typing import Any

from pruning_agents.cli.arguments import positive_int

#: The names of `latency_arguments`, by those of the options.
_NAMES = {
    "runtime": "runtime",
    "latency_batch": "batch",
    "latency_threads": "threads",
    "latency_table": "table",
}


def add_runtime(parser: argparse.ArgumentParser, *, table: bool) -> None:
    """Add what `runtime_arguments` reads; with `table`, also what predicts during a search."""
    from pruning_env.evaluation.runtimes import RUNTIMES

    group = parser.add_argument_group("latency", "Where the budget latency and results are timed.")
    group.add_argument("--runtime", choices=tuple(RUNTIMES), help="what runs (default: eager)")
    group.add_argument(
        "--latency-batch", type=positive_int, metavar="N", help="images per pass (default: 1)"
    )
    group.add_argument(
        "--latency-threads",
        type=positive_int,
        metavar="N",
        help="threads of the processor (default: torch's own number)",
    )
    if table:
        group.add_argument(
            "--latency-table",
            metavar="FILE",
            help="predict the budget latency during the search by the table in FILE; 90 random "
            "prunings are timed for it where there is none. The result is timed in any case",
        )


def runtime_arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What was given, by the names of the environment's `latency_arguments`."""
    given = {name: getattr(options, option, None) for option, name in _NAMES.items()}
    return {name: value for name, value in given.items() if value is not None}


def protocol(runtime: str, batch: int, threads: int | None) -> str:
    """Where something was timed, as in "onnxruntime, batch 1, 2 threads"."""
    if threads is None:
        return f"{runtime}, batch {batch}"
    return f"{runtime}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
