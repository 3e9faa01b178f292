"""Copies of a module's structure with other tensors in it, and of what modules keep in attributes.

`copy.deepcopy` without its cost per attribute, and without copying tensors that are replaced. Knows
nothing of channels.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pruning_env.graph.untouched import Memoised


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, each tensor once."""
    return list(walk(model)[1].items())


def walk(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
    """All modules by every name they have; parameters, then buffers, by their first.

    What `named_modules`, `named_parameters` and `named_buffers` say, in a third of the time.
    """
    modules: dict[str, nn.Module] = {}
    parameters: dict[str, Tensor] = {}
    buffers: dict[str, Tensor] = {}
    _visit(model, "", modules, (parameters, buffers), set())
    return modules, parameters | buffers


def _visit(
    module: nn.Module,
    path: str,
    modules: dict[str, nn.Module],
    tensors: tuple[dict[str, Tensor], dict[str, Tensor]],
    seen: set[int],
) -> None:
    modules[path] = module
    prefix = f"{path}." if path else ""
    if id(module) not in seen:
        seen.add(id(module))
        kinds: tuple[Mapping[str, Tensor | None], ...] = (module._parameters, module._buffers)
        for own, found in zip(kinds, tensors, strict=True):
            for name, tensor in own.items():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    found[prefix + name] = tensor
    for name, child in module._modules.items():
        if child is not None:
            _visit(child, prefix + name, modules, tensors, seen)


def like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value` as a parameter if `tensor` is one."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def structure_copy(model: nn.Module, old: dict[str, Tensor], new: dict[str, Tensor]) -> nn.Module:
    """`copy.deepcopy` with other tensors put in the place of the old ones, which are not copied."""
    memo: dict[int, Any] = {id(tensor): new[name] for name, tensor in old.items()}
    return copy_module(model, memo)


def copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy` does to a plain module, without its cost per attribute.

    Args:
        module: The module.
        memo: What to put in the place of tensors, and of modules that were copied before, by `id`.
    """
    if id(module) in memo:
        return memo[id(module)]
    kind = type(module)
    # What torch's own `__setstate__` do is give attributes to modules pickled before they existed.
    # Compiling puts another function in the place of `nn.Module`'s: it is asked whose it is.
    owner = next(each for each in kind.__mro__ if "__setstate__" in vars(each))
    is_torchs = owner.__module__.startswith("torch.nn.")
    if hasattr(kind, "__deepcopy__") or not is_torchs:
        return copy.deepcopy(module, memo)
    twin = memo[id(module)] = kind.__new__(kind)
    attributes = twin.__dict__
    for name, value in module.__dict__.items():
        sort = type(value)
        if sort in _ATOMS or (sort is tuple and _ATOMS.issuperset(map(type, value))):
            attributes[name] = value
        elif sort in _CONTAINERS and not value:  # hooks, mostly
            attributes[name] = sort()
        elif name in ("_parameters", "_buffers"):
            attributes[name] = {key: memo.get(id(tensor)) for key, tensor in value.items()}
        elif name == "_modules":
            attributes[name] = {
                key: None if child is None else copy_module(child, memo)
                for key, child in value.items()
            }
        else:
            attributes[name] = _copy_value(value, memo)
    return twin


def _copy_value(value: Any, memo: dict[int, Any]) -> Any:
    """`copy.deepcopy`, for tensors that are results and for caches that belong to the original."""
    if isinstance(value, Memoised):  # or the copy would ask the original, whose method it wraps
        inner = copy.deepcopy(value.__wrapped__, memo)
        return functools.lru_cache(**value.cache_parameters())(inner)
    _copy_results(value, memo, set())
    return copy.deepcopy(value, memo)


def _copy_results(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Put copies of tensors that are results into `memo`, as `copy.deepcopy` refuses them."""
    for each in tree_leaves(value):
        if isinstance(each, Tensor):
            if not each.is_leaf:
                memo.setdefault(id(each), each.detach().clone())
        elif (
            hasattr(each, "__dict__")
            and not isinstance(each, (type, nn.Module, FunctionType))
            and id(each) not in seen | memo.keys()
        ):
            seen.add(id(each))
            _copy_results(vars(each), memo, seen)


def forget(model: nn.Module, caches: Iterable[tuple[str, str]]) -> None:
    """Empty what forward keeps from one call to the next: see `ChannelGraph.caches`."""
    for path, name in caches:
        attributes = model.get_submodule(path).__dict__
        attributes[name] = without_tensors(attributes[name])


def without_tensors(value: Any) -> Any:
    """A tensor -> None; a container -> one without the entries that hold tensors."""
    if isinstance(value, Tensor):
        return None
    if isinstance(value, dict):
        rest = copy.copy(value)
        for key in [key for key, held in value.items() if holds_tensors(held)]:
            del rest[key]
        return rest
    return tree_map(lambda leaf: None if isinstance(leaf, Tensor) else leaf, value)


def holds_tensors(value: Any) -> bool:
    """Whether there is a tensor in a value or in containers in it."""
    return any(isinstance(leaf, Tensor) for leaf in tree_leaves(value))


_ATOMS = frozenset((bool, int, float, str, bytes, type(None), torch.dtype, torch.device, type))
_CONTAINERS = frozenset((OrderedDict, dict, list, set))
