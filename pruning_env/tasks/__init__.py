"""What is pruned and what it is judged on: a network, its images, its weights.

A `Task` ties the three together under a name; a pruned network is saved and read here, too. Knows
nothing of accuracy, environments or agents. Begin with `registry.py`; `data.py` has the splits,
`storage.py` pruned networks on disk, `models/` the built-in networks.
"""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    # `pruning_env.tasks` was the module `registry` before it was a package.
    if name in ("Task", "get_task", "imagefolder_task", "register_task", "task_names"):
        from pruning_env.tasks import registry

        return getattr(registry, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
