"""Rows as a Markdown table, the published numbers beside them. Nothing here measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.reproduce.after_training import AFTER_TRAINING, REFERENCE
from benchmarks.reproduce.published import RL_PRUNER_DENSE, Published
from benchmarks.reproduce.rows import Pruned, ReproduceRow
from pruning_agents.comparison.statistics import paired_difference

__all__ = ["to_markdown"]

#: With fewer, resampling pairs says nothing.
_FEWEST_PAIRS = 3

_TITLES = (
    *("task", "row", "method", "seeds", "dense test %", "search-val % before", "test %"),
    *("params cut %", "MACs cut %", "filters cut %", "evaluations", "epochs", "minutes"),
)


def to_markdown(table: str, rows: Sequence[ReproduceRow]) -> str:
    """One line per method of each network and budget, means over seeds, ranges of test accuracies.

    Args:
        table: Its name.
        rows: Of that table.
    """
    ours = [row for row in rows if row.cell.table == table]
    lines: list[tuple[str, ...]] = [_TITLES, ("---",) * 3 + ("---:",) * (len(_TITLES) - 3)]
    places = sorted({(row.cell.task, row.cell.label) for row in ours})
    for task, label in places:
        here = [row for row in ours if (row.cell.task, row.cell.label) == (task, label)]
        for published in here[0].cell.published:
            lines.append(_published_line(task, label, published))
        for who in dict.fromkeys(row.cell.who for row in here):
            lines.append(_line([row for row in here if row.cell.who == who]))
    parts = [f"# {table}", _table(lines), _caption(ours)]
    if table == AFTER_TRAINING:
        parts.insert(2, _differences(ours))
    return "\n\n".join(parts) + "\n"


def _differences(rows: Sequence[ReproduceRow]) -> str:
    """Every method minus the reference, seed by seed, in points of test accuracy."""
    lines: list[tuple[str, ...]] = [
        ("task", "row", f"method minus {REFERENCE}", "pairs", "before training", "after"),
        ("---", "---", "---", "---:", "---:", "---:"),
    ]
    for task, label in sorted({(row.cell.task, row.cell.label) for row in rows}):
        found = {
            (row.cell.who, row.cell.seed): row.pruned
            for row in rows
            if (row.cell.task, row.cell.label) == (task, label) and row.pruned is not None
        }
        for who in dict.fromkeys(who for who, _ in found if who != REFERENCE):
            pairs = [
                (pruned, found[REFERENCE, seed])
                for (other, seed), pruned in found.items()
                if other == who and (REFERENCE, seed) in found
            ]
            if pairs:
                before = [(one.before_val, two.before_val) for one, two in pairs]
                after = [(one.test_accuracy, two.test_accuracy) for one, two in pairs]
                told = (_difference(before), _difference(after))
                lines.append((task, label, who, str(len(pairs)), *told))
    return (
        "Differences in percentage points, paired by seed, with 95 % bootstrap intervals where "
        f"there are three pairs or more: before training on search-val, after it on test.\n\n"
        f"{_table(lines)}"
    )


def _difference(pairs: Sequence[tuple[float, float]]) -> str:
    first, second = (100 * np.array(side) for side in zip(*pairs, strict=True))
    if len(pairs) < _FEWEST_PAIRS:
        return f"{np.mean(first - second):+.2f}"
    found = paired_difference([first], [second])
    return f"{found.estimate:+.2f} ({found.low:+.2f} to {found.high:+.2f})"


def _table(lines: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(rows: Sequence[ReproduceRow]) -> tuple[str, ...]:
    cell = rows[0].cell
    found = [row.pruned for row in rows if row.pruned is not None]
    head = (cell.task, cell.label, cell.who, str(len(rows)), _mean([r.dense_test for r in rows]))
    if not found:
        return (*head, *("-",) * 5, f"{rows[0].evaluations:,}", "-", "-")
    minutes = np.mean([row.search_minutes + row.recovery_minutes for row in rows])
    return (
        *head,
        _mean([each.before_val for each in found]),
        _spread(found)
        + ("" if len(found) == len(rows) else f", {len(found)} of {len(rows)} found"),
        _mean([1 - each.params_share for each in found]),
        _mean([1 - each.macs_share for each in found]),
        _mean([each.filters_cut for each in found]),
        f"{np.mean([row.evaluations for row in rows]):,.0f}",
        str(cell.recovery.epochs),
        f"{minutes:.1f}",
    )


def _published_line(task: str, label: str, row: Published) -> tuple[str, ...]:
    dense = RL_PRUNER_DENSE.get(task) if row.method.startswith("RL-Pruner") else None
    figures = (dense, None, row.accuracy, row.params_cut, row.macs_cut)
    numbers = tuple("-" if number is None else f"{number:.2f}" for number in figures)
    return (task, label, f"*{row.method}*", "1", *numbers, *("-",) * 4)


def _mean(shares: Sequence[float]) -> str:
    return f"{100 * float(np.mean(shares)):.2f}"


def _spread(found: Sequence[Pruned]) -> str:
    values = [each.test_accuracy for each in found]
    mean = _mean(values)
    return mean if len(values) == 1 else f"{mean} ({100 * min(values):.2f}-{100 * max(values):.2f})"


def _caption(rows: Sequence[ReproduceRow]) -> str:
    hardware = "; ".join(sorted({row.provenance.hardware for row in rows}))
    seen = sorted({row.cell.task for row in rows if row.val_seen})
    note = (
        f" The dense weights of {', '.join(seen)} were trained on search-val images, so search-val "
        "accuracies there are optimistic."
        if seen
        else ""
    )
    smoke = (
        " **Tasks that begin with smoke- are untrained networks on random images: their numbers "
        "mean nothing.**"
        if any(row.cell.task.startswith("smoke-") for row in rows)
        else ""
    )
    steps = (
        "; by methods called -20-steps after as many of training, and it is that network which is "
        "trained on"
        if any(row.cell.who.endswith("-20-steps") for row in rows)
        else ""
    )
    return (
        "Lines in italics are published numbers, not ours: one seed, checkpoints chosen on test. "
        "Ours: searched on search-val, recovered on search-train with the epoch chosen on "
        "search-val, test opened once per network, with the weights as stored (half precision); "
        "mean (range) over seeds. *filters cut* is the share of filters and neurons removed, which "
        "RL-Pruner calls sparsity. RL-Pruner's MACs include batch norm, ours do not. Evaluations: "
        f"pruned networks judged on search-val{steps}. Minutes: wall-clock of search and recovery, "
        f"on {hardware or 'nothing yet'}.{note}{smoke}"
    )
