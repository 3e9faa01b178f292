"""Counts how often a data set is loaded with its test split in the open.

Loaders hand out the test images together with all others. An environment locks them away at once,
within `sealing`; every other load is counted. Code that reads the files itself is not seen. Knows
nothing of what is loaded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

__all__ = ["counted", "load", "open_loads", "sealing"]

_P = ParamSpec("_P")
_T = TypeVar("_T")

_open_loads = 0
_SEALING: ContextVar[bool] = ContextVar("sealing", default=False)


def open_loads() -> int:
    """Loads in this process so far, but for those within `sealing`."""
    return _open_loads


@contextmanager
def sealing() -> Iterator[None]:
    """What is loaded in this block does not count: its caller puts the test split into a vault."""
    token = _SEALING.set(True)
    try:
        yield
    finally:
        _SEALING.reset(token)


def load(loader: Callable[..., _T], *given: Any, **named: Any) -> _T:
    """What `loader` returns, as one load, whatever loaders it calls itself."""
    global _open_loads
    if not _SEALING.get():
        _open_loads += 1
    with sealing():
        return loader(*given, **named)


def counted(loader: Callable[_P, _T]) -> Callable[_P, _T]:
    """The same loader, each of whose calls is a load."""

    @functools.wraps(loader)
    def counting(*given: _P.args, **named: _P.kwargs) -> _T:
        return load(loader, *given, **named)

    return counting
