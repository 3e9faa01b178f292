"""Activations that let a little through where they are flat, so that no signal dies on the way.

Knows nothing of channels.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["Leaking"]

_SLOPE = 0.25

#: In place and not, as the classes, the functions and the methods call them.
_FLAT = frozenset(
    (
        *(torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu),
        *(functional.relu6, functional.hardtanh, functional.hardtanh_),
        *(functional.hardswish, functional.hardsigmoid),
    )
)


class Leaking(TorchFunctionMode):
    """Replaces a flat activation f by f(x) + (x - f(x)) / 4, which is as much a function per value.

    With one channel left in every layer, half of all rectified linear units return zero whatever
    comes in, and a network of ten layers a constant: two networks that differ agree on it.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _FLAT:
            return func(*args, **kwargs)
        x = args[0] if args else kwargs.get("input")
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return func(*args, **kwargs)
        before = x.clone()  # it may work in place
        result = func(*args, **kwargs)
        return result.add_(before - result, alpha=_SLOPE)
