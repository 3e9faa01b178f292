"""Checks of single arguments, so that every error reads the same way.

Each message names the argument, shows what was given and says what is allowed. Knows nothing of
pruning or of Gymnasium.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_choice(argument: str, given: Any, allowed: Iterable[str]) -> None:
    """Raise `ValueError` unless `given` is one of the names in `allowed`."""
    names = sorted(allowed)
    if not isinstance(given, str) or given not in names:
        raise ValueError(f"{argument}={given!r} is unknown; allowed: {', '.join(names)}")


def check_fraction(argument: str, given: Any) -> float:
    """Return `given` as a float; raise `ValueError` unless it is a number in (0, 1]."""
    if not _is_number(given) or not 0.0 < float(given) <= 1.0:
        raise ValueError(f"{argument}={given!r} is not allowed; give a number in (0, 1]")
    return float(given)


def check_finite(argument: str, given: Any) -> float:
    """Return `given` as a float; raise `ValueError` unless it is a finite number."""
    if not _is_number(given) or not math.isfinite(given):
        raise ValueError(f"{argument}={given!r} is not allowed; give a finite number")
    return float(given)


def check_positive(argument: str, given: Any) -> float:
    """Return `given` as a float; raise `ValueError` unless it is a finite number above 0."""
    if not _is_number(given) or not 0.0 < float(given) < math.inf:
        raise ValueError(f"{argument}={given!r} is not allowed; give a finite number above 0")
    return float(given)


def check_count(argument: str, given: Any, least: int = 1) -> int:
    """Return `given` as an int; raise `ValueError` unless it is an integer of at least `least`."""
    if not isinstance(given, Integral) or isinstance(given, bool) or given < least:
        raise ValueError(
            f"{argument}={given!r} is not allowed; give an integer of at least {least}"
        )
    return int(given)


def check_new_name(argument: str, name: Any, taken: Iterable[str]) -> None:
    """Raise `ValueError` unless `name` can be added to a registry that holds `taken`."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"{argument}={name!r} is not allowed; give a non-empty string")
    if name in taken:
        raise ValueError(f"{argument}={name!r} is already registered; choose another name")


def _is_number(given: Any) -> bool:
    """`True` is a `Real` in Python, but never what was meant."""
    return isinstance(given, Real) and not isinstance(given, bool)
