"""What the rows say: rank correlation, regret and price of each proxy, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from benchmarks.proxies.rows import ProxyRow

__all__ = ["Worth", "by_budget", "to_markdown", "worth"]

_RESAMPLES = 2000


@dataclass(frozen=True)
class Worth:
    """What a proxy is worth at one budget.

    Attributes:
        tau: Kendall's tau-b between what it says and test accuracy after training.
        interval: 95 %, by resampling networks.
        regret: Test accuracy that is lost by training the network that it likes best, instead of
            the best of all, in [0, 1].
        image_passes: Of one network, mean.
    """

    tau: float
    interval: tuple[float, float]
    regret: float
    image_passes: float


def by_budget(rows: Sequence[ProxyRow]) -> dict[str, list[ProxyRow]]:
    """Rows by the name of their budget, in the order of the rows."""
    found: dict[str, list[ProxyRow]] = {}
    for row in rows:
        limits = ", ".join(f"{name} ≤ {limit:g}" for name, limit in row.allocation.budget.items())
        found.setdefault(f"{row.task}, {limits}", []).append(row)
    return found


def worth(rows: Sequence[ProxyRow], proxy: str) -> Worth:
    """Of one proxy, from the rows of one budget.

    Raises:
        ValueError: Fewer than three rows.
    """
    if len(rows) < 3:
        raise ValueError(f"rows: {len(rows)} networks have no order worth a number; give 3 or more")
    said = np.array([row.proxies[proxy].accuracy for row in rows])
    after = np.array([row.test_accuracy for row in rows])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(rows), (_RESAMPLES, len(rows)))
    taus = np.array([_tau(said[index], after[index]) for index in drawn])
    low, high = np.nanpercentile(taus, (2.5, 97.5)) if np.isfinite(taus).any() else (-1.0, 1.0)
    return Worth(
        _tau(said, after),
        (float(low), float(high)),
        float(after.max() - after[int(said.argmax())]),
        float(np.mean([row.proxies[proxy].image_passes for row in rows])),
    )


def _tau(said: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    return float(kendalltau(said, after).statistic)


def to_markdown(rows: Sequence[ProxyRow]) -> str:
    """One table per budget, and how to read it."""
    parts = ["# How much each reward is worth\n"]
    for title, own in by_budget(rows).items():
        parts.append(f"## {title}: {len(own)} networks\n")
        if len(own) < 3:
            parts.append("Too few for a number.\n")
            continue
        lines = [
            "| after | Kendall's τ with test after training | regret, points | image passes |",
            "| --- | ---: | ---: | ---: |",
        ]
        for name in own[0].proxies:
            found = worth(own, name)
            lines.append(
                f"| {name} | {found.tau:.2f} ({found.interval[0]:.2f} to "
                f"{found.interval[1]:.2f}) | {100 * found.regret:.2f} | "
                f"{found.image_passes:,.0f} |"
            )
        after = [100 * row.test_accuracy for row in own]
        lines.append(f"\nTest after training: {min(after):.2f} to {max(after):.2f} %.\n")
        parts.append("\n".join(lines))
    origin, training, times = rows[0].provenance, rows[0].training, rows[0].training_seeds
    parts.append(
        f"*After*: accuracy on search-val right after the cut (none), with batch norm estimated "
        f"anew (bn), reconstructed, and from there so many steps of SGD, or an epoch. τ: 1 if a "
        f"proxy orders networks as training them for {training.epochs} epochs ({times} seeds, "
        f"mean) does, 0 if it says nothing (95 % interval by resampling networks). *regret*: what "
        f"is lost on test by training the network that the proxy likes best instead of the best. "
        f"*image passes*: images that one network is shown for it."
        f"\n\n```bash\n{origin.command}\n```\n"
    )
    return "\n".join(parts)
