"""Every network of a pool as a task: `pool-<name of the pool>-<number>`, such as `pool-train-3`.

They are not listed, there being so many, but whatever takes a task takes them.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from pruning_env.tasks.data import Splits, load_digits8
from pruning_env.tasks.models.loading import load_state_file
from pruning_env.tasks.pools.network import INPUT_SHAPE, build
from pruning_env.tasks.pools.storage import Pool, open_pool
from pruning_env.tasks.registry import Task

__all__ = ["PREFIX", "make", "task_name"]

PREFIX = "pool-"


def task_name(pool: Pool, index: int) -> str:
    """Of network `index` of a pool."""
    return f"{PREFIX}{pool.name}-{index}"


def make(name: str) -> Task:
    """The task of that name.

    Raises:
        FileNotFoundError: The pool's files are missing.
        ValueError: There is no such pool, or no such network in it.
    """
    pool_name, _, number = name.removeprefix(PREFIX).rpartition("-")
    if not number.isdecimal():
        raise ValueError(f"task={name!r}: unknown; networks of pools are {PREFIX}<pool>-<number>.")
    pool, index = open_pool(pool_name), int(number)
    spec = pool.specification(index)
    return Task(
        name=name,
        summary=f"network {index} of pool {pool_name} ({spec.family}) on scikit-learn's digits",
        build=partial(build, spec),
        load_data=_load_digits,
        load_weights=partial(_load_weights, pool, index),
        input_shape=INPUT_SHAPE,
        val_seen=False,
        trace=partial(pool.graph, index),
    )


def _load_digits(root: str | None) -> Splits:
    del root  # they come with scikit-learn
    return load_digits8()


def _load_weights(
    pool: Pool, index: int, module: nn.Module, weights: str | None, root: str | None
) -> None:
    del root
    if weights is None:
        pool.fill(index, module)
    else:
        load_state_file(module, weights)
