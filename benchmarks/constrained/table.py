"""The rows as a Markdown table: what was reached, with intervals, and what was asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.constrained.findings import Findings, findings, wilson
from benchmarks.constrained.rows import FIXED, ConstrainedRow
from pruning_agents.comparison.statistics import bootstrap

#: Share of the seeds that have to keep a limit.
_ASKED = 0.9

_TITLES = (
    "limit",
    "trained at",
    "seeds",
    "mean cost / limit",
    "limit kept",
    "accuracy / best",
    "within 5 % of best",
    "gap to frontier",
    "on frontier",
    "price",
    "feasible episodes (%)",
    "most likely: cost / limit",
    "within the limit",
    "projected: accuracy / best",
    "delivered: within the limit",
    "accuracy / best",
)


def to_markdown(rows: Sequence[ConstrainedRow], name: str) -> str:
    """A table of the limits, one of the fixed prices, and what they mean.

    Args:
        rows: of any methods and seeds, with the same settings.
        name: of the figure beside the table, without suffix.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    found = findings(rows)
    parts = [f"![λ, cost and reward over evaluations]({name}.png)\n"]
    if found:
        parts.append(_table(_TITLES, [_line(each) for each in found]))
        parts.append(_verdict(found))
    fixed = [row for row in rows if row.method == FIXED]
    if fixed:
        lines = []
        for price in sorted({row.number for row in fixed}):
            own = [row.policy for row in fixed if row.number == price]
            lines.append(
                (
                    f"{price:g}",
                    str(len(own)),
                    _interval(np.array([each.usage for each in own]), 3),
                    _interval(np.array([100 * each.accuracy for each in own]), 1),
                )
            )
        parts.append(_table(("price", "seeds", "parameters / dense", "accuracy (%)"), lines))
    parts.append(_caption(rows))
    return "\n".join(parts)


def _line(found: Findings) -> tuple[str, ...]:
    gaps = found.gaps[np.isfinite(found.gaps)]
    modes = np.array([row.mode.usage / row.number for row in found.rows])
    return (
        f"params ≤ {found.budget:g}",
        f"{found.rows[-1].trained_at * found.budget:g}",
        str(len(found.rows)),
        _interval(found.costs, 3),
        _share(found.kept),
        _interval(found.accuracies, 3),
        _share(found.near_best),
        _interval(100 * gaps, 1) if gaps.size else "-",
        _share(found.on_frontier) if gaps.size else "-",
        _interval(np.array([row.price for row in found.rows]), 0),
        _interval(100 * np.array([row.policy.feasible for row in found.rows]), 1),
        _interval(modes, 3),
        _share(modes <= 1.0),
        *_shipped(found),
    )


def _shipped(found: Findings) -> tuple[str, ...]:
    """What the projected policy and the network handed over are; dashes in rows of before them."""
    rows = [row for row in found.rows if row.projected and row.delivered and row.optimum]
    if not rows:
        return ("-",) * 3
    projected, delivered = (
        np.array([getattr(row, name).accuracy / row.optimum for row in rows])
        for name in ("projected", "delivered")
    )
    within = np.array([row.delivered is not None and row.delivered.feasible == 1.0 for row in rows])
    return _interval(projected, 3), _share(within), _interval(delivered, 3)


def _interval(values: NDArray[np.float64], digits: int) -> str:
    mean = bootstrap([values])
    if values.size == 1:
        return f"{mean.estimate:.{digits}f}"
    return f"{mean.estimate:.{digits}f} ({mean.low:.{digits}f} to {mean.high:.{digits}f})"


def _share(hits: NDArray[np.bool_]) -> str:
    low, high = wilson(int(hits.sum()), hits.size)
    return f"{int(hits.sum())} of {hits.size} ({100 * low:.0f} to {100 * high:.0f} %)"


def _verdict(found: Sequence[Findings]) -> str:
    lines = []
    for each in found:
        missed = [
            what
            for what, hits in (
                ("the limit kept", each.kept),
                ("the accuracy within 5 % of the best", each.near_best),
                ("the end on the frontier", each.on_frontier),
            )
            if hits.mean() < _ASKED
        ]
        outcome = "met" if not missed else "missed: " + "; ".join(missed)
        lines.append(f"- params ≤ {each.budget:g}: {outcome}.")
    return "Asked for, each in at least 90 % of the seeds:\n\n" + "\n".join(lines) + "\n"


def _caption(rows: Sequence[ConstrainedRow]) -> str:
    first = rows[-1]
    training = first.settings["training"]
    episodes = first.history[-1].episodes
    seconds = np.mean([row.cpu_seconds for row in rows])
    return (
        "CNNPruneTabular-v0, "
        + ", ".join(f"{k}={v!r}" for k, v in first.settings["environment"].items())
        + f"; {training['rollouts']} rollouts, {episodes:,} episodes per run, each one evaluation; "
        f"{seconds:.0f} s of processor time. Means over seeds with 95 % bootstrap intervals, "
        "shares with Wilson's. A limit is kept where the mean cost of the final policy, with its "
        f"noise, over {first.policy.episodes:,} episodes is at most the limit and at most 5 % "
        "below. The best is the most accurate of all networks within the limit; a policy whose "
        "mean keeps the limit may mix larger and smaller ones, and so be better. Prices are "
        "percentage points of accuracy per dense network's parameters. The frontier is the upper "
        "hull of PPO's ends, by the same settings, for rewards less a fixed price times the "
        "parameters left; gaps to it in percentage points. Training keeps a lower limit, for a "
        "margin. Feasible episodes: of the policy with its noise. Most likely: one episode of the "
        "policy's mean actions; projected: the same actions where the budget is enforced; "
        "delivered: the most accurate network within the limit, of that and all that training saw. "
        f"On {first.provenance.hardware}.\n"
    )


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    marks = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (titles, marks, *lines)) + "\n"
