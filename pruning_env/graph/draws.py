"""Runs of a model that can be compared: random draws alike at any width, and what integers hide.

Knows nothing of channels.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["Watched", "is_discrete", "seed_all"]


def seed_all() -> None:
    """Let every generator that code may draw from begin alike; `untouched` puts them back."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


class Watched(TorchDispatchMode):
    """Gives every draw one number for all its elements, and keeps what integers were made from.

    A wider tensor takes more numbers from a generator, so two models of different width do not
    draw the same ones even if they begin alike. Here the n-th draw of a run is a number that
    depends on n and on the distribution only: what is not wrong at any draws is not wrong at
    these. Masks of dropout keep all. Draws that cannot be replaced so are left as they are.

    Args:
        collect: Whether to fill `hidden`.

    Attributes:
        draws: Random operators that were called.
        hidden: Real tensors of which an operator made integers or truth values, in order.
    """

    def __init__(self, collect: bool) -> None:
        super().__init__()
        self._collect = collect
        self.draws = 0
        self.hidden: list[Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded in func.tags:
            self.draws += 1
            return self._draw(func, args, kwargs)
        result = func(*args, **kwargs)
        if self._collect and any(map(is_discrete, tree_leaves(result))):
            self.hidden += [t.clone() for t in tree_leaves(args) if _is_real(t)]
        return result

    def _draw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        share = (0.5 + self.draws * _GOLDEN) % 1.0  # spread evenly over (0, 1)
        name = func._schema.name.partition("::")[2].rstrip("_")
        given = {a.name: v for a, v in zip(func._schema.arguments, args, strict=False)} | kwargs
        if name == "native_dropout":
            x, p, training = args
            x = x / (1 - p) if training and p < 1 else x.clone()
            return x, torch.ones_like(x, dtype=torch.bool)
        if name == "rrelu_with_noise":
            return func(*args[:4], False, **kwargs)
        result = func(*args, **kwargs)
        if name == "randperm":
            return torch.sort(result)[0]
        if name == "poisson":
            return args[0].round()
        if name in ("rand", "rand_like"):
            return result.fill_(share)
        if name in ("randn", "randn_like", "normal", "normal_functional"):
            mean, std = (given.get(key, default) for key, default in (("mean", 0), ("std", 1)))
            return result.copy_(torch.as_tensor(mean + std * (3 * share - 1.5)))
        if name in ("randint", "randint_like"):
            low, high = given.get("low", 0), given["high"]
            return result.fill_(low + int(share * (high - low)))
        if name == "uniform":
            low, high = given.get("from", 0.0), given.get("to", 1.0)
            return result.fill_(low + share * (high - low))
        if name == "exponential":
            return result.fill_(-math.log(share) / given.get("lambd", 1.0))
        if name in ("bernoulli", "cauchy", "log_normal", "geometric", "random"):
            return result.fill_(1)
        return result


_GOLDEN = (math.sqrt(5) - 1) / 2


def is_discrete(value: Any) -> bool:
    """Whether a value is a tensor of integers or truth values."""
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
