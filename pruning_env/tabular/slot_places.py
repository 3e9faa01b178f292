"""Places of N episodes, put together and taken apart: see `Place`.

Knows nothing of what a step does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pruning_env.evaluation.evaluator import Metrics
from pruning_env.tabular.table_dynamics import Place

__all__ = ["put", "repeated", "row", "taken"]


def _each(function: Callable[..., Any], *places: Place) -> Place:
    """What `function` makes of each column of the places, together."""

    def column(of: Callable[[Place], Any]) -> Any:
        return function(*(of(place) for place in places))

    return Place(
        places[0].process,
        column(lambda place: place.index),
        column(lambda place: place.step),
        Metrics(
            column(lambda place: place.latest.accuracy), column(lambda place: place.latest.loss)
        ),
        column(lambda place: place.judged),
        column(lambda place: place.last_action),
        column(lambda place: place.requested),
        column(lambda place: place.removed),
    )


def repeated(place: Place, slots: int) -> Place:
    """N times the place of one episode."""
    return _each(lambda value: np.repeat(np.asarray(value)[None], slots, axis=0), place)


def taken(places: Place, slots: Any) -> Place:
    """The places of some slots."""
    return _each(lambda column: column[slots], places)


def put(places: Place, slots: Any, others: Place) -> Place:
    """`places` with some slots at the place of one episode, or at one place each."""

    def changed(column: np.ndarray, values: Any) -> np.ndarray:
        column = column.copy()
        column[slots] = values
        return column

    return _each(changed, places, others)


def row(places: Place, slot: int) -> Place:
    """One slot's place, as of one episode."""
    return _each(lambda column: column[slot] if column.ndim > 1 else column.item(slot), places)
