"""Which layers of a model are meant: by a pattern of names, a type, or the module itself."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

from torch import nn

from pruning_env.graph.copies import named_tensors

Layers = Iterable[str | type[nn.Module] | nn.Module]


def tensors_of(model: nn.Module, layers: Layers, argument: str) -> frozenset[str]:
    """First names of the parameters and buffers of the modules that are meant.

    Args:
        model: The model they are in.
        layers: Patterns of `fnmatch` for names as in `named_modules` (`"layer1.*"`, `"*.conv2"`),
            module types (subclasses count), or modules of `model`.
        argument: How the caller's argument is called, for errors.

    Raises:
        ValueError: When one of `layers` is none of these, or means no module of `model`.
    """
    if isinstance(layers, (str, type, nn.Module)):
        raise ValueError(f"{argument} must be a list, got {_shown(layers)} alone")
    names: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    found: set[int] = set()
    for layer in layers:
        if isinstance(layer, str):
            meant = [name for name in names if name and fnmatchcase(name, layer)]
        elif isinstance(layer, type) and issubclass(layer, nn.Module):
            meant = [name for name, module in names.items() if isinstance(module, layer)]
        elif isinstance(layer, nn.Module):
            meant = [name for name, module in names.items() if module is layer]
        else:
            raise ValueError(
                f"{argument} holds {layer!r}; allowed are patterns of names, module types and "
                "modules"
            )
        if not meant:
            close = difflib.get_close_matches(str(layer), names, n=3)
            hint = f"; similar names: {', '.join(close)}" if close else ""
            raise ValueError(
                f"{argument} holds {_shown(layer)}, which is no module of this "
                f"{type(model).__name__}{hint}"
            )
        for name in meant:
            found |= {id(t) for _, t in named_tensors(names[name])}
    return frozenset(name for name, tensor in named_tensors(model) if id(tensor) in found)


def matching(names: Iterable[str], patterns: Iterable[str], argument: str) -> frozenset[str]:
    """The names that one of the patterns matches.

    Raises:
        ValueError: When a pattern matches none.
    """
    known = list(names)
    found: set[str] = set()
    for pattern in patterns:
        meant = [name for name in known if fnmatchcase(name, pattern)]
        if known and not meant:
            raise ValueError(
                f"{argument} holds {pattern!r}, which matches none of {', '.join(known[:5])}, ..."
            )
        found.update(meant)
    return frozenset(found)


def _shown(layer: object) -> str:
    if isinstance(layer, nn.Module):
        return f"a {type(layer).__name__}"
    return layer.__name__ if isinstance(layer, type) else repr(layer)
