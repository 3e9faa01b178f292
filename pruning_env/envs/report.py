"""The final judgement of a pruned network, as `report()` of an environment gives it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Report"]


@dataclass(frozen=True)
class Report:
    """The final judgement of one pruned network. Making one opens the test split.

    Attributes:
        accuracy: test top-1 accuracy, in [0, 1].
        loss: test cross-entropy, mean per image.
        val_accuracy: search-val accuracy, the number that was optimised.
        params: parameters / dense.
        macs: MACs / dense.
        counts: channels kept per group.
        feasible: whether every budget is met.
        test_openings: how often this environment, its forks and copies have opened the test split,
            this time included.
    """

    accuracy: float
    loss: float
    val_accuracy: float
    params: float
    macs: float
    counts: tuple[int, ...]
    feasible: bool
    test_openings: int
