"""How the budget `latency` is measured: in which runtime, and whether by the clock or by a table.

Knows nothing of steps or of other budgets.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pruning_env.evaluation.runtimes import Runtime

__all__ = ["LatencySettings"]

_NAMES = ("runtime", "batch", "threads", "table")


@dataclass(frozen=True)
class LatencySettings:
    """What users give as `latency_arguments`.

    Attributes:
        runtime: where networks are timed.
        table: file of a latency table that predicts during the search; None to time each network.
    """

    runtime: Runtime = field(default_factory=Runtime)
    table: str | None = None

    @classmethod
    def of(cls, arguments: Mapping[str, Any] | None) -> LatencySettings:
        """The settings with these, by name: `runtime`, `batch`, `threads`, `table`.

        Raises:
            ValueError: a name that there is not, or a value that is not allowed.
        """
        given: Any = {} if arguments is None else arguments
        if not isinstance(given, Mapping) or not set(given) <= set(_NAMES):
            raise ValueError(
                f"latency_arguments={arguments!r} is not allowed; give a dict of some of "
                f"{', '.join(_NAMES)}"
            )
        table = given.get("table")
        if table is not None and not isinstance(table, str | os.PathLike):
            raise ValueError(f"table={table!r} is not allowed; give the name of a file, or None")
        runtime = Runtime(
            given.get("runtime", "eager"), given.get("batch", 1), given.get("threads")
        )
        return cls(runtime, None if table is None else os.fspath(table))
