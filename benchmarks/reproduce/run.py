"""Run the cells of a table that have no row yet, one after the other, and keep what they yield.

Whoever kills it loses the cell it was at and nothing else. Nothing here knows which cells a table
has or how one is run.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.reproduce.cell import RunContext, run_cell
from benchmarks.reproduce.rows import ReproduceRow, read_rows
from benchmarks.reproduce.specification import Cell
from benchmarks.reproduce.table import to_markdown
from pruning_agents.search.rows import append_row, provenance
from pruning_env.files import atomic_write

__all__ = ["RunSettings", "run_cells"]


@dataclass(frozen=True)
class RunSettings:
    """Where to run and write.

    Attributes:
        out: Folder of rows, tables and weights.
        context: Of all cells.
        minutes: No cell begins after so many; None for no such end.
        cells: Begin at most so many; None for all.
    """

    out: Path
    context: RunContext
    minutes: float | None = None
    cells: int | None = None


def run_cells(
    table: str, cells: Sequence[Cell], settings: RunSettings, command: str, console: Console
) -> list[ReproduceRow]:
    """Run what is missing, appending each row at once; write the table; return all its rows."""
    file = settings.out / f"{table}.jsonl"
    rows = read_rows(file)
    missing = [cell for cell in cells if cell.key not in rows or rows[cell.key].failed]
    _say(console, f"{table}: {len(cells)} cells, {len(cells) - len(missing)} of them in {file}")

    def write_table() -> None:
        if rows:
            atomic_write(settings.out / f"{table}.md", to_markdown(table, list(rows.values())))

    write_table()  # anew, though nothing be missing: its text may have changed
    begun = time.monotonic()
    for number, cell in enumerate(missing):
        late = settings.minutes is not None and time.monotonic() - begun > 60 * settings.minutes
        if late or (settings.cells is not None and number >= settings.cells):
            _say(console, f"stopped with {len(missing) - number} cells left; run again to go on")
            break
        origin = provenance(command, settings.context.device)
        row = run_cell(cell, settings.context, settings.out / table / cell.slug, origin)
        append_row(file, row)
        rows[cell.key] = row
        _say(console, describe(row))
        write_table()  # after every cell, so that a run cut short leaves one
    return [rows[cell.key] for cell in cells if cell.key in rows]


def describe(row: ReproduceRow) -> str:
    """A row in one line."""
    cell = row.cell
    head = f"{cell.task} {cell.label} {cell.who} seed {cell.seed}: "
    if row.pruned is None:
        return head + row.failed
    pruned = row.pruned
    return (
        f"{head}search-val {pruned.before_val:.2%} -> {pruned.val_accuracy:.2%}, test "
        f"{pruned.test_accuracy:.2%} (dense {row.dense_test:.2%}), {pruned.params_share:.1%} of "
        f"the parameters, {pruned.macs_share:.1%} of the MACs, {row.evaluations} evaluations, "
        f"{row.search_minutes:.1f} + {row.recovery_minutes:.1f} minutes"
    )


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
