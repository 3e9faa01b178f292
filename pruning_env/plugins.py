"""Plug-ins: installed packages that add tasks, budgets, rewards and importances by name.

A distribution names a module in the entry point group `pruning_env.plugins`; importing the module
registers what it has. So `gym.make("CNNPrune-v0", task="theirs")` works once it is installed,
without an import, in worker processes and on the command line too. Knows nothing of what is
registered.
"""

from __future__ import annotations

import functools
import warnings
from importlib.metadata import EntryPoint, entry_points

__all__ = ["GROUP", "load_plugins"]

GROUP = "pruning_env.plugins"


@functools.cache
def load_plugins() -> None:
    """Import the plug-ins, once in a process: when a name is first looked up or listed.

    Not when `pruning_env` is imported, which stays quick. A plug-in that cannot be imported is left
    out with a `RuntimeWarning` that names it; the others, and what is built in, are there.
    """
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        try:
            point.load()
        except Exception as error:  # it is somebody else's, and may fail in any way
            warnings.warn(
                f"plug-in {point.name!r} ({_origin(point)}) is left out: importing {point.value!r} "
                f"raised {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )


def _origin(point: EntryPoint) -> str:
    """Name and version of the distribution that an entry point came with."""
    found = point.dist
    return "unknown distribution" if found is None else f"{found.name} {found.version}"
