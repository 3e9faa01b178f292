"""Leave a model, and all that it can reach, as it was found, whatever is run in between.

Code that is traced or tried may fill caches, append to lists of a hook, or rebind names, and what
it puts there may be tensors without values. This module records every container within reach, and
puts its contents back. It knows nothing of pruning.
"""

from __future__ import annotations

import functools
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Memoised", "reach", "untouched"]

Memoised = functools._lru_cache_wrapper

# Their own state is theirs to keep right, and far larger than any model's.
_FOREIGN = frozenset((*sys.stdlib_module_names, "torch", "numpy", "scipy", "pruning_env", "pytest"))
_LARGEST = 1 << 24  # numbers in a loose tensor that is worth a copy


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Put back what runs of `model`, or of a copy, change in whatever the model can reach.

    That is: attributes of its modules and of objects they hold, dicts, lists, sets and deques,
    variables that functions close over, class attributes and globals that its code names, tensors
    that are no parameters or buffers, and the states of all generators of random numbers. An
    `lru_cache` that was added to is emptied: nothing is lost but time.
    """
    restore = [_record(each) for each in reach(model)]
    cpu, python, numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        for put_back in restore:
            put_back()
        torch.set_rng_state(cpu)
        random.setstate(python)
        np.random.set_state(numbers)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


class _Name:
    """A name in a class or in a module's globals, which may be bound anew."""

    def __init__(self, owner: type | dict[str, Any], name: str) -> None:
        self.owner, self.name = owner, name

    @property
    def value(self) -> Any:
        names = vars(self.owner) if isinstance(self.owner, type) else self.owner
        return names.get(self.name)

    def bind(self, value: Any) -> None:
        if isinstance(self.owner, type):
            setattr(self.owner, self.name, value)
        else:
            self.owner[self.name] = value


def reach(root: object) -> Iterator[Any]:
    """Everything that `root` reaches and that can change: see `untouched`.

    Objects with attributes appear as the dictionary of these.
    """
    # What has been seen stays alive here, or another object might get its identity.
    seen: dict[int, object] = {}
    left: list[object] = [root]
    while left:
        each = left.pop()
        if id(each) in seen or isinstance(each, _ATOMS):
            continue
        seen[id(each)] = each
        if isinstance(each, _KINDS):
            yield each
        left += _inside(each)


_ATOMS = (bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device)
_KINDS = (dict, list, set, deque, types.CellType, Memoised, Tensor, torch.Generator, _Name)


def _inside(each: object) -> list[Any]:
    """What an object leads to at once."""
    if isinstance(each, dict):
        inside = list(each.values())
    elif isinstance(each, (list, tuple, set, frozenset, deque)):
        inside = list(each)
    elif isinstance(each, types.CellType):
        inside = [each.cell_contents] if _filled(each) else []
    elif isinstance(each, types.FunctionType):
        inside = _of_function(each)
    elif isinstance(each, types.MethodType):
        return [each.__self__, each.__func__]
    elif isinstance(each, (classmethod, staticmethod)):
        return [each.__func__]
    elif isinstance(each, property):
        return [each.fget]
    elif isinstance(each, functools.partial):
        return [each.func, each.args, each.keywords]
    elif isinstance(each, Memoised):
        return [each.__wrapped__]
    elif isinstance(each, _Name):
        return [each.value]
    elif isinstance(each, type):
        return _of_class(each)
    elif isinstance(each, (Tensor, types.ModuleType, torch.dtype)):
        return []
    else:
        inside = []
    if not isinstance(each, nn.Module) and _foreign(type(each)):
        return inside  # containers and functions among them have no attributes that matter
    attributes = getattr(each, "__dict__", None)
    return [*inside, *([attributes] if isinstance(attributes, dict) else []), type(each)]


def _of_function(function: types.FunctionType) -> list[Any]:
    if _foreign(function):
        return list(function.__closure__ or ())  # a decorator of the library's
    return [
        *(function.__closure__ or ()),
        *(function.__defaults__ or ()),
        *(function.__kwdefaults__ or {}).values(),
        *_named(function.__code__, function.__globals__),
    ]


def _named(code: types.CodeType, scope: dict[str, Any]) -> Iterator[Any]:
    """The globals that code names, and what it names in modules of them."""
    for name in code.co_names:
        value = scope.get(name)
        if isinstance(value, types.ModuleType):
            if not _foreign(value):
                inner = vars(value)
                yield from (_Name(inner, n) for n in code.co_names if n in inner)
        elif name in scope:
            yield _Name(scope, name)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _named(constant, scope)


def _of_class(kind: type) -> list[Any]:
    inside: list[Any] = []
    for base in kind.__mro__:
        if not _foreign(base):
            inside += [_Name(base, name) for name in vars(base) if not name.startswith("__")]
            inside += [f for n, f in vars(base).items() if n in ("__call__", "__init__")]
    return inside


def _foreign(thing: Any) -> bool:
    name = thing.__name__ if isinstance(thing, types.ModuleType) else thing.__module__
    return not isinstance(name, str) or name.partition(".")[0] in _FOREIGN


def _filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _record(each: Any) -> Callable[[], None]:
    """How to put back the contents that one of `reach`'s finds has now."""
    if isinstance(each, dict):
        return functools.partial(_refill, each, list(each.items()), _same_items, each.update)
    if isinstance(each, set):
        return functools.partial(_refill, each, list(each), _same_members, each.update)
    if isinstance(each, (list, deque)):
        return functools.partial(_refill, each, list(each), _same_sequence, each.extend)
    if isinstance(each, types.CellType):
        return functools.partial(_refill_cell, each, each.cell_contents if _filled(each) else each)
    if isinstance(each, Memoised):
        return functools.partial(_forget, each, each.cache_info().misses)
    if isinstance(each, torch.Generator):
        return functools.partial(_reset, each, each.get_state())
    if isinstance(each, _Name):
        return functools.partial(_rebind, each, each.value)
    if isinstance(each, (nn.Parameter, nn.Buffer)) or each.is_inference() or _is_large(each):
        return _nothing
    return functools.partial(_rewrite, each, each._version, each.detach().clone())


def _is_large(tensor: Tensor) -> bool:
    return tensor.layout is not torch.strided or tensor.numel() > _LARGEST


def _nothing() -> None:
    pass


def _same_items(now: dict[Any, Any], before: list[tuple[Any, Any]]) -> bool:
    return len(now) == len(before) and all(
        k is key and v is value for (k, v), (key, value) in zip(now.items(), before, strict=True)
    )


def _same_members(now: set[Any], before: list[Any]) -> bool:
    return set(map(id, now)) == set(map(id, before))


def _same_sequence(now: Any, before: list[Any]) -> bool:
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


def _refill(each: Any, before: list[Any], same: Callable[..., bool], add: Callable) -> None:
    if not same(each, before):
        each.clear()
        add(before)


def _refill_cell(cell: types.CellType, before: Any) -> None:
    if before is cell:
        if _filled(cell):
            del cell.cell_contents
    elif not _filled(cell) or cell.cell_contents is not before:
        cell.cell_contents = before


def _forget(cached: Any, misses: int) -> None:
    if cached.cache_info().misses != misses:
        cached.cache_clear()


def _reset(generator: torch.Generator, state: Tensor) -> None:
    generator.set_state(state)


def _rebind(name: _Name, before: Any) -> None:
    if name.value is not before:
        name.bind(before)


def _rewrite(tensor: Tensor, version: int, before: Tensor) -> None:
    if tensor._version != version:
        with torch.no_grad():
            tensor.copy_(before)
