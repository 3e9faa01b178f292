"""Stand-ins for tasks whose data or weights are not here: the network itself on random images.

With them every command can be tried end to end in seconds on any machine; what they measure means
nothing. Knows nothing of training or search.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import torch
from torch import nn

from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.registry import get_task, register_task, task_names

__all__ = ["SMOKE_PREFIX", "smoke_task"]

SMOKE_PREFIX = "smoke-"

#: Images of search-train, search-val and test.
_SIZES = (32, 16, 16)


def smoke_task(name: str) -> str:
    """Register the stand-in of a task, if it is not yet, and return its name.

    Raises:
        ValueError: There is no such task.
    """
    task = get_task(name)
    stand_in = SMOKE_PREFIX + name
    if stand_in not in task_names():
        register_task(
            dataclasses.replace(
                task,
                name=stand_in,
                summary=f"{name}, untrained, on random images: to try commands with",
                load_data=partial(_random_splits, task.input_shape),
                load_weights=_random_weights,
                val_seen=False,
            )
        )
    return stand_in


def _random_splits(shape: tuple[int, int, int], root: str | None) -> Splits:
    del root
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(0, 10, (count,), generator=generator))

    train, val, test = (split(count) for count in _SIZES)
    mean, std = (0.5,) * shape[0], (0.3,) * shape[0]
    return Splits(train, val, test, mean, std, num_classes=10, shift=2, flip=True)


def _random_weights(module: nn.Module, weights: str | None, root: str | None) -> None:
    """The same network every time; a file is not read."""
    del weights, root
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                spread = (2 / parameter[0].numel()) ** 0.5
                parameter.normal_(0, spread, generator=generator)
