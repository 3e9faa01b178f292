"""The end of a command: a result is judged, written and shown.

Knows neither who searched nor how. It prints to the console it is given.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from pruning_agents.cli.output import write_result
from pruning_agents.cli.runtime_options import protocol
from pruning_agents.search.judge import judge, judge_dense, with_networks
from pruning_agents.search.result import ENDINGS, Search
from pruning_agents.search.rows import ResultRow, provenance


def deliver(
    options: argparse.Namespace,
    console: Console,
    env: gym.Env,
    settings: dict[str, Any],
    search: Search,
    seed: int,
    seconds: float,
    allowed: int | None = None,
) -> int:
    """Judge, write and show a result; the exit code, 1 if there is none.

    Args:
        options: of the command.
        console: to print to.
        env: that was searched.
        settings: keyword arguments that it was made with.
        search: what was found.
        seed: of the search.
        seconds: that it took.
        allowed: evaluations that it might spend; None if there was no limit.
    """
    result = search.result
    if search.why:
        console.print(f"Search ended: {ENDINGS[search.why]}.", soft_wrap=True)
    if result is None:
        console.print("Nothing feasible was found: give more --evaluations or a looser --budget.")
        return 1
    unwrapped, settings = with_networks(env, settings)
    dense = judge_dense(unwrapped, settings, open_test=options.test)
    row = judge(
        unwrapped,
        result,
        dense,
        settings=settings,
        seed=seed,
        wall_seconds=seconds,
        provenance=provenance(options.command_line, options.device),
        open_test=options.test,
        allowed=allowed,
        ended=search.why,
    )
    write_result(options.out, unwrapped, settings["task"], result, row, search.algorithm)
    console.print(result_table(row))
    if verdict := latency_verdict(row):
        console.print(verdict, soft_wrap=True)
    console.print(f"Written to {options.out}", soft_wrap=True)
    return 0


def result_table(row: ResultRow) -> Table:
    """What a row says, the pruned model beside the dense one."""
    of = "" if row.allowed is None else f" of {row.allowed}"
    table = comparison(f"{row.task}: {row.agent}, {row.evaluations}{of} evaluations")
    seen = " (seen in training)" if row.val_seen else ""
    table.add_row(
        f"search-val accuracy{seen}", f"{row.val_accuracy:.2%}", f"{row.dense_val_accuracy:.2%}"
    )
    if row.test_accuracy is not None:
        table.add_row("test accuracy", f"{row.test_accuracy:.2%}", f"{row.dense_test_accuracy:.2%}")
    add_size(table, "parameters", row.params, round(row.params / row.params_ratio))
    add_size(table, "MACs", row.macs, round(row.macs / row.macs_ratio))
    where = protocol(row.latency_runtime or "eager", row.latency_batch, row.latency_threads)
    add_latency(table, where, row.latency_ms / 1e3, row.dense_latency_ms / 1e3)
    if row.latency_interval is not None and row.latency_rounds is not None:
        note_interval(table, row.latency_rounds, *row.latency_interval)
    return table


def latency_verdict(row: ResultRow) -> str | None:
    """Whether a limit on latency is met as timed, or by how much not; None where there is none.

    What counts is the upper end of the interval, as it does while a search times its networks.
    """
    limit = row.budget.get("latency")
    if limit is None or row.latency_interval is None:
        return None
    high = row.latency_interval[1]
    verdict = "is met as timed" if high <= limit else f"is missed by {high - limit:.3f}, as timed"
    predicted = "" if row.latency_predicted is None else f", predicted {row.latency_predicted:.3f}"
    return f"Budget latency={limit:g} {verdict}: at most {high:.3f}{predicted}."


def comparison(title: str) -> Table:
    """An empty table that compares a pruned model with the dense one."""
    table = Table(title=title)
    table.add_column("")
    for column in ("pruned", "dense", "ratio"):
        table.add_column(column, justify="right")
    return table


def add_size(table: Table, name: str, pruned: Any, dense: Any) -> None:
    """Add a row of two whole numbers and their ratio."""
    table.add_row(name, f"{int(pruned):,}", f"{int(dense):,}", f"{pruned / dense:.3f}")


def add_latency(table: Table, where: str, seconds: float, dense_seconds: float) -> None:
    """Add a row of two times per batch of images and their ratio; `where` they were taken."""
    table.add_row(
        f"latency, {where}",
        f"{1e3 * seconds:.2f} ms",
        f"{1e3 * dense_seconds:.2f} ms",
        f"{seconds / dense_seconds:.3f}",
    )


def note_interval(table: Table, rounds: int, low: float, high: float) -> None:
    """Say below a table how sure its ratio of times is."""
    table.caption = (
        f"latency: medians of {rounds} rounds in which both take turns, of processor time where "
        f"one thread computes. The ratio is {low:.3f} to {high:.3f} with 95 % confidence, by wall "
        "or processor time, whichever ratio is larger"
    )
