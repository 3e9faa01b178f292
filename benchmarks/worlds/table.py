"""The table of rows: accuracies without training, and what of the differences may be said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.worlds.rows import WorldRow
from pruning_agents.comparison.statistics import Interval, paired_difference

__all__ = ["to_markdown"]

_NOTES = """
Accuracy on test, in %, of networks pruned and fitted by least squares (`recovery="reconstruct"`,
128 images of search-train), nothing trained. A policy reads a network's features, one pass forward
and back on search-train, and acts once: 0 evaluations. Differences are paired by network and
budget, averaged over budgets and seeds, in percentage points; intervals are 95 % bootstrap
intervals over networks, which are {networks}. The best rule is the one with the highest mean in
this very column, which flatters rules: nobody knows it beforehand.
"""


def to_markdown(rows: Sequence[WorldRow]) -> str:
    """A table for each pool, and how to read them."""
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    parts = ["# Networks never seen\n"]
    counts = []
    for pool in dict.fromkeys(row.question.pool for row in rows):
        own = _complete([row for row in rows if row.question.pool == pool])
        parts.append(f"## {pool}\n\n{_pool_table(own)}")
        counts.append(f"{len({row.question.network for row in own})} of {pool}")
    parts.append(_NOTES.format(networks=", ".join(counts)))
    last = rows[-1].provenance
    commands = "\n".join(dict.fromkeys(row.provenance.command for row in rows))
    parts.append(f"```bash\n{commands}\n```\n\nOn {last.hardware}.\n")
    return "\n".join(parts)


def _label(row: WorldRow) -> tuple[str, int, int]:
    return row.method, row.learned_on, row.evaluations


def _complete(rows: Iterable[WorldRow]) -> list[WorldRow]:
    """Without questions that some method has not answered: means are over the same ones."""
    rows = list(rows)
    answered: dict[tuple[str, int, int], set] = {}
    for row in rows:
        answered.setdefault(_label(row), set()).add(row.question)
    common = set.intersection(*answered.values())
    return [row for row in rows if row.question in common]


def _pool_table(rows: Sequence[WorldRow]) -> str:
    limits = sorted({dict(row.question.limits)["macs"] for row in rows})
    labels = list(dict.fromkeys(_label(row) for row in rows))
    means = {label: _by_network(rows, label) for label in labels}
    rules = [label for label in labels if label[1] == label[2] == 0]
    best = max(rules, key=lambda label: float(np.mean(means[label]))) if rules else None
    dense = 100 * np.mean([row.dense_test_accuracy for row in rows])
    titles = ["method", "evaluations", *(f"MACs {limit:g}" for limit in limits), "mean"]
    titles.append("less the best rule" if best is None else f"less {best[0]}")
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    lines.append(["dense", "", *["" for _ in limits], f"{dense:.1f}", ""])
    for label in labels:
        method, learned_on, evaluations = label
        at = [_mean(rows, label, limit) for limit in limits]
        name = f"{method}, {learned_on} networks" if learned_on else method
        line = [name, str(evaluations), *(f"{value:.1f}" for value in at)]
        line.append(f"{np.mean(means[label]):.1f}")
        if best is None or label == best:
            line.append("")
        else:
            line.append(_said(paired_difference([means[label]], [means[best]])))
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _mean(rows: Sequence[WorldRow], label: tuple[str, int, int], limit: float) -> float:
    own = [
        row.test_accuracy
        for row in rows
        if _label(row) == label and dict(row.question.limits)["macs"] == limit
    ]
    return 100 * float(np.mean(own))


def _by_network(rows: Sequence[WorldRow], label: tuple[str, int, int]) -> list[float]:
    """Per network, the mean over budgets and seeds, in %."""
    own: dict[int, list[float]] = {}
    for row in rows:
        if _label(row) == label:
            own.setdefault(row.question.network, []).append(100 * row.test_accuracy)
    return [float(np.mean(own[network])) for network in sorted(own)]


def _said(interval: Interval) -> str:
    return f"{interval.estimate:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}]"
