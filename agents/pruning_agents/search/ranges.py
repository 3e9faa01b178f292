"""Checks of numeric arguments that agents share; None stands for "not used" and passes."""

from __future__ import annotations


def check_counts(**values: int | None) -> None:
    """Raise `ValueError`, naming the argument, unless each value is at least 1."""
    for name, value in values.items():
        if value is not None and value < 1:
            raise ValueError(f"{name}={value} must be at least 1")


def check_range(low: float, high: float, **values: float | None) -> None:
    """Raise `ValueError`, naming the argument, unless each value is in [low, high]."""
    for name, value in values.items():
        if value is not None and not low <= value <= high:
            raise ValueError(f"{name}={value} must be between {low:g} and {high:g}")
