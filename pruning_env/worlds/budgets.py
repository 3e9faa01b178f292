"""Ranges of budgets, and how one is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pruning_env.arguments import check_choice, check_fraction

__all__ = [
    "CLOSED_FORMS",
    "DEFAULT_RANGES",
    "Ranges",
    "chosen_limits",
    "draw_limits",
    "parse_ranges",
]

CLOSED_FORMS = ("macs", "params")
"""Budgets that can be drawn: what they count is exact, and known before anything is pruned."""

DEFAULT_RANGES = {"macs": (0.2, 0.6)}

Ranges = dict[str, tuple[float, float]]


def parse_ranges(budget: Mapping[str, Any] | None) -> Ranges:
    """Check a `budget` argument: by name, a limit or a range of limits.

    Raises:
        ValueError: It is none.
    """
    given: Any = DEFAULT_RANGES if budget is None else budget
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"budget={budget!r} is not allowed; give a non-empty dict of limits in (0, 1], or of "
            f"ranges of them, with keys from: {', '.join(CLOSED_FORMS)}"
        )
    ranges: Ranges = {}
    for name, limits in given.items():
        check_choice("budget key", name, CLOSED_FORMS)
        ends = limits if isinstance(limits, Sequence) and len(limits) == 2 else (limits, limits)
        low, high = (check_fraction(f"budget[{name!r}]", end) for end in ends)
        if low > high:
            raise ValueError(
                f"budget[{name!r}]={limits!r} is not allowed; the lower end goes first"
            )
        ranges[name] = (low, high)
    return ranges


def draw_limits(ranges: Ranges, rng: np.random.Generator) -> dict[str, float]:
    """A limit from the range of one of the budgets, both uniformly; of the others 1, no limit."""
    chosen = sorted(ranges)[int(rng.integers(len(ranges)))]
    limit = float(rng.uniform(*ranges[chosen]))
    return {name: limit if name == chosen else 1.0 for name in sorted(ranges)}


def chosen_limits(ranges: Ranges, given: Any) -> dict[str, float]:
    """The limits that `options["budget"]` asks for; those it does not name are no limit.

    Raises:
        ValueError: A budget that the environment was not made with, or no limit.
    """
    if not isinstance(given, Mapping) or not given or not set(given) <= set(ranges):
        raise ValueError(
            f'options["budget"]={given!r} is not allowed; give a dict of limits in (0, 1] with '
            f"keys from: {', '.join(sorted(ranges))}, those that the environment was made with"
        )
    return {
        name: check_fraction(f'options["budget"][{name!r}]', given.get(name, 1.0))
        for name in sorted(ranges)
    }
