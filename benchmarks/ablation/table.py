"""Rows of the ablation as a Markdown table. Nothing here searches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.ablation.run import AblationRow
from benchmarks.ablation.variants import VARIANTS
from pruning_agents.comparison.statistics import bootstrap

__all__ = ["to_markdown"]

_TITLES = ("variant", "seeds", "feasible", "search-val %", "regret", "evaluations")

_NOTES = """
Solved tier, at most 40 % of the filters and neurons kept. One part of ours at a time in place of
the published one, and all of them ("our default", which also takes other logits). Networks are
looked up with batch norm re-estimated, whatever a variant judged them by: the published recipe
judges them as cut. Regret: 0 is the best network within the budget, 1 what random actions give;
mean, and 95 % bootstrap interval of it. Evaluations: different networks judged, of as many
transitions.

Not here: ranking anew and training after each commit, which change networks, and the table holds
one network per configuration. Steps are 5 % of the channels instead of 1 %, because the table's
units are five channels.
"""


def to_markdown(rows: Sequence[AblationRow]) -> str:
    """One line per variant: means over its seeds.

    Args:
        rows: of one number of transitions.
    """
    lines = [_TITLES, ("---", *["---:"] * (len(_TITLES) - 1))]
    for variant in VARIANTS:
        own = [row for row in rows if row.variant == variant.name]
        if own:
            lines.append(_line(variant.name, own))
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    commands = dict.fromkeys(row.provenance.command for row in rows)
    hardware = dict.fromkeys(row.provenance.hardware for row in rows)
    return (
        f"# RL-Pruner, part by part\n\n{body}\n{_NOTES}\n```bash\n{chr(10).join(commands)}\n```\n\n"
        f"{'; '.join(hardware)}\n"
    )


def _line(name: str, rows: Sequence[AblationRow]) -> tuple[str, ...]:
    regrets = np.array([row.regret for row in rows if row.regret is not None])
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    shown = ("-", "-")
    if regrets.size:
        interval = bootstrap([regrets])
        shown = (
            f"{100 * float(np.mean(accuracies)):.1f}",
            f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})",
        )
    return (
        name,
        str(len(rows)),
        f"{len(regrets)} of {len(rows)}",
        *shown,
        f"{np.mean([row.evaluations for row in rows]):,.0f}",
    )
