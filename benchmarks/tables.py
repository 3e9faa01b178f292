"""Result rows as one table, for the terminal and for a Markdown file from the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import rich.table

from pruning_agents.search.rows import ResultRow


@dataclass(frozen=True)
class Comparison:
    """Cells of a table, its titles, and what must be said below it."""

    titles: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    caption: str


def comparison_table(rows: Sequence[ResultRow]) -> Comparison:
    """One line per method: means over its seeds, and for accuracies the range in brackets.

    Raises:
        ValueError: if there are no rows, or they are not of one task and budget.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    if len({(row.task, tuple(row.budget.items())) for row in rows}) > 1:
        raise ValueError("rows are of several tasks or budgets; make one table for each")
    lines = []
    for method in dict.fromkeys(row.agent for row in rows):
        own = [row for row in rows if row.agent == method]
        tests = [100 * row.test_accuracy for row in own if row.test_accuracy is not None]
        lines.append(
            (
                method,
                f"{np.mean([row.evaluations for row in own]):,.0f}",
                _with_range([100 * row.val_accuracy for row in own]),
                _with_range(tests) if tests else "-",
                f"{np.mean([row.params for row in own]):,.0f}",
                f"{np.mean([row.macs for row in own]):,.0f}",
                f"{np.mean([row.latency_ms for row in own]):.1f} "
                f"({np.mean([row.dense_latency_ms for row in own]):.1f})",
                f"{np.mean([row.latency_ratio for row in own]):.2f}",
            )
        )
    titles = (
        "method",
        "evals",
        "search-val %",
        "test %",
        "params",
        "MACs",
        "ms (dense)",
        "ratio",
    )
    return Comparison(titles, tuple(lines), _caption(rows))


def _with_range(values: Sequence[float]) -> str:
    mean, low, high = (f"{number:.1f}" for number in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low}-{high})"


def _caption(rows: Sequence[ResultRow]) -> str:
    first = rows[0]
    seeds = max(sum(row.agent == agent for row in rows) for agent in {row.agent for row in rows})
    budget = ", ".join(f"{name} <= {limit:g}" for name, limit in first.budget.items())
    spread = (
        "One seed: an illustration, not a comparison."
        if seeds == 1
        else f"Mean (range) over {seeds} seeds: an illustration; too few to rank methods."
    )
    seen = " The dense weights were trained on search-val images." if first.val_seen else ""
    return (
        f"{first.task}, {budget} of dense. {spread} The search saw search-val only; test was "
        f"opened once per result.{seen} evals: pruned networks judged on search-val. "
        f"ms: median latency ({_timing(rows)}), and that of the dense model timed "
        f"in turns with it, on {first.provenance.hardware}; ratio of the two."
    )


def _timing(rows: Sequence[ResultRow]) -> str:
    """How the rows were timed; several ways where they differ."""
    ways = {f"{row.latency_runtime or 'eager'}, batch {row.latency_batch}" for row in rows}
    return "; ".join(sorted(ways))


def to_markdown(table: Comparison) -> str:
    """The table in Markdown, the caption below it."""
    right = ["---:"] * (len(table.titles) - 1)
    lines = [table.titles, ("---", *right), *table.lines]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{body}\n\n{table.caption}\n"


def to_rich(table: Comparison) -> rich.table.Table:
    """The table for a terminal, without the caption."""
    shown = rich.table.Table()
    for index, title in enumerate(table.titles):
        shown.add_column(title, justify="right" if index else "left")
    for line in table.lines:
        shown.add_row(*line)
    return shown
