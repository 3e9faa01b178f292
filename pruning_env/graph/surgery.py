"""Surgery: really smaller modules, and their masked twins.

Pruning copies a module's structure and takes one slice per tensor; weights that go are never
copied.
"""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pruning_env.graph.structure import ChannelStructure, Keep
from pruning_env.graph.untouched import Memoised


def prune(graph: ChannelStructure, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.prune`."""
    modules, tensors = _walk(model)
    _check(graph, tensors)
    kept = np.append(keep, True)  # channel -1 reads the last entry: never removed
    indices = _Indices([_kept_places(kept, channels) for channels in graph.cuts.channels])
    small: dict[str, Tensor] = {}
    changed: dict[str, None] = {}
    with torch.no_grad():
        for name, tensor in tensors.items():
            places = indices.on(tensor.device)
            cut = [
                (dim, index)
                for dim, place in graph.cuts.tensors.get(name, ())
                if (index := places[place]) is not None
            ]
            small[name] = _like(tensor, _cut(tensor, cut))
            if cut:
                changed |= dict.fromkeys(graph.cuts.owners[name])
    twins: dict[int, Any] = {id(tensor): small[name] for name, tensor in tensors.items()}
    pruned = _copy_module(model, twins)
    forget(pruned, graph.caches)
    for path in changed:
        _refresh(twins[id(modules[path])])
    for (path, name), numbers in graph.cuts.attributes.items():
        module = twins[id(modules[path])]
        counts = [(index, int(kept[channels].sum())) for index, channels in numbers]
        setattr(module, name, _rewritten(getattr(module, name), counts))
    for norm in graph.normalised:
        _resize(twins[id(modules[norm.module])], (int(kept[norm.entry].sum()),))
    for adapter in graph.widened:
        entry, exit = _kept_places(kept, adapter.entry), _kept_places(kept, adapter.exit)
        if entry is not None or exit is not None:
            inner = pruned.get_submodule(adapter.module)
            pruned.set_submodule(adapter.module, FullWidth(inner, len(adapter.entry), entry, exit))
    return pruned


def mask(graph: ChannelStructure, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.mask`."""
    _, dense = _walk(model)
    _check(graph, dense)
    tensors = {name: _like(tensor, tensor.detach().clone()) for name, tensor in dense.items()}
    kept = np.append(keep, True)
    with torch.no_grad():
        for slot in graph.slots:
            gone = np.flatnonzero(~kept[slot.channels])
            if slot.consumes and gone.size:
                tensor = tensors[slot.tensor]
                tensor.index_fill_(slot.dim, torch.from_numpy(gone).to(tensor.device), 0)
    masked = structure_copy(model, dense, tensors)
    forget(masked, graph.caches)
    if graph.normalised:
        small = prune(graph, model, keep)
        paths = [norm.module for norm in graph.normalised]
        for norm in graph.normalised:
            if kept[norm.entry].all() and kept[norm.exit].all():
                continue
            if any(norm.module.startswith(f"{path}.") for path in paths):
                continue  # its parent is replaced as a whole
            entry, exit = (np.flatnonzero(kept[end]) for end in (norm.entry, norm.exit))
            inner = small.get_submodule(norm.module)
            masked.set_submodule(
                norm.module,
                KeptOnly(
                    inner,
                    norm.dim,
                    torch.from_numpy(entry),
                    torch.from_numpy(exit) if len(exit) < len(norm.exit) else None,
                    len(norm.exit),
                ),
            )
    return masked


class FullWidth(nn.Module):
    """Runs a parameter-free module at the width its code was written for.

    The kept channels are scattered into zeros at their old places, and the kept outputs gathered.

    Args:
        inner: The module, for `(N, width, ...)` inputs.
        width: Its number of input channels.
        entry: Old places of the channels that arrive; None for all.
        exit: Places of the outputs to pass on; None for all.
    """

    entry: Tensor | None
    exit: Tensor | None

    def __init__(
        self, inner: nn.Module, width: int, entry: Tensor | None, exit: Tensor | None
    ) -> None:
        super().__init__()
        self.inner = inner
        self.width = width
        self.register_buffer("entry", entry, persistent=False)
        self.register_buffer("exit", exit, persistent=False)
        self.train(inner.training)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, kept inputs, ...)` -> `(N, kept outputs, ...)`."""
        if self.entry is not None:
            full = x.new_zeros((x.shape[0], self.width, *x.shape[2:]))
            x = full.index_copy(1, self.entry, x)
        y = self.inner(x)
        return y if self.exit is None else y.index_select(1, self.exit)


class KeptOnly(nn.Module):
    """Runs a pruned norm or gate on the kept channels of a full-size activation.

    Args:
        inner: The pruned module.
        dim: Channel dimension of its input and output.
        entry: Places of the channels that it still takes.
        exit: Places of its outputs at full width, the others become 0; None to pass them on as
            they are.
        width: Number of outputs at full width.
    """

    entry: Tensor
    exit: Tensor | None

    def __init__(
        self, inner: nn.Module, dim: int, entry: Tensor, exit: Tensor | None, width: int
    ) -> None:
        super().__init__()
        self.inner = inner
        self.dim = dim
        self.width = width
        self.register_buffer("entry", entry, persistent=False)
        self.register_buffer("exit", exit, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Full width in, full width out."""
        y = self.inner(x.index_select(self.dim, self.entry))
        if self.exit is None:
            return y
        shape = list(y.shape)
        shape[self.dim] = self.width
        return y.new_zeros(shape).index_copy(self.dim, self.exit, y)


def named_tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, each tensor once."""
    return list(_walk(model)[1].items())


def _walk(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, Tensor]]:
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


def _check(graph: ChannelStructure, tensors: dict[str, Tensor]) -> None:
    shapes = graph.shapes
    if len(shapes) == len(tensors) and all(
        shapes.get(name) == tensor.shape for name, tensor in tensors.items()
    ):
        return
    for name in shapes.keys() | tensors.keys():
        given = tuple(tensors[name].shape) if name in tensors else "nothing"
        if given != shapes.get(name, "nothing"):
            raise ValueError(
                f"model is not the one that was traced: {name} is {given}, "
                f"the graph knows {shapes.get(name, 'nothing')}"
            )


def _kept_places(kept: Keep, channels: NDArray[np.int64]) -> Tensor | None:
    """Places whose channel is kept; None for all."""
    flags = kept[channels]
    return None if flags.all() else torch.from_numpy(np.flatnonzero(flags))


class _Indices:
    """Index tensors, moved once to every device that needs them."""

    def __init__(self, indices: list[Tensor | None]) -> None:
        self._on = {torch.device("cpu"): indices}

    def on(self, device: torch.device) -> list[Tensor | None]:
        if device not in self._on:
            here = self._on[torch.device("cpu")]
            self._on[device] = [None if i is None else i.to(device) for i in here]
        return self._on[device]


def _cut(tensor: Tensor, cut: list[tuple[int, Tensor]]) -> Tensor:
    """A copy that holds the chosen indices only, of each (dimension, indices)."""
    if not cut:
        return tensor.clone()
    if len(cut) > 1:
        cut = sorted(cut, key=lambda c: len(c[1]) / tensor.shape[c[0]])
        (first, rows), (second, columns) = cut[:2]
        if len(cut) == 2 and first + second == 1 and tensor.numel() >= _BLOCK_CUT:
            return _cut_in_blocks(tensor, *((rows, columns) if first == 0 else (columns, rows)))
    for dim, index in cut:
        tensor = tensor.index_select(dim, index)
    return tensor


_BLOCK_CUT = 2**20  # numbers in a tensor; smaller ones are cut faster than they are split
_BLOCK = 2**18  # numbers in a block of rows


def _cut_in_blocks(tensor: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Rows and columns of a large tensor, without a copy of all the rows at once.

    Fresh memory costs more than the copying: VGG-16's first linear layer takes half the time.
    """
    out = tensor.new_empty((len(rows), len(columns), *tensor.shape[2:]))
    step = max(1, _BLOCK // tensor[0].numel())
    for block, some in zip(out.split(step), rows.split(step), strict=True):
        torch.index_select(tensor.index_select(0, some), 1, columns, out=block)
    return out


def _like(tensor: Tensor, value: Tensor) -> Tensor:
    """`value` as a parameter if `tensor` is one."""
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(value, requires_grad=tensor.requires_grad)
    return value


def structure_copy(model: nn.Module, old: dict[str, Tensor], new: dict[str, Tensor]) -> nn.Module:
    """`copy.deepcopy` with other tensors put in the place of the old ones, which are not copied."""
    memo: dict[int, Any] = {id(tensor): new[name] for name, tensor in old.items()}
    return _copy_module(model, memo)


def _copy_module(module: nn.Module, memo: dict[int, Any]) -> nn.Module:
    """What `copy.deepcopy` does to a plain module, without its cost per attribute."""
    if id(module) in memo:
        return memo[id(module)]
    kind = type(module)
    # What torch's own `__setstate__` do is give attributes to modules pickled before they existed.
    is_torchs = kind.__setstate__.__module__.startswith("torch.nn.")
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
                key: None if child is None else _copy_module(child, memo)
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


def _refresh(module: nn.Module) -> None:
    """Bring a module's numbers of channels in line with its tensors."""
    for kind, refresh in _REFRESH.items():
        if isinstance(module, kind):
            refresh(module)
            return
    tensors = (module._parameters.get(name, module._buffers.get(name)) for name in _WIDE)
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            _resize(module, tuple(tensor.shape))
            return


_WIDE = ("weight", "bias", "running_mean")


def _weight(module: nn.Module) -> Tensor:
    """The weight of a layer; where it is computed, the parameter that it is computed from.

    Of several that is the largest: next to it there are norms, scales and masks of one shape.
    """
    if (stored := module._parameters.get("weight")) is not None:
        return stored
    return max(module.parameters(), key=lambda p: (p.dim(), p.numel()))


def _resize(module: Any, shape: tuple[int, ...]) -> None:
    """Tell a norm the number of its channels, or the shape it normalises."""
    width = shape[0]
    if isinstance(module, nn.GroupNorm):
        if module.num_groups == module.num_channels:
            module.num_groups = width
        module.num_channels = width
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = width
    elif len(getattr(module, "normalized_shape", ())) == len(shape):  # nn.LayerNorm, and its like
        module.normalized_shape = shape


def _refresh_conv(module: Any) -> None:
    rows, columns = _weight(module).shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        multiplier = module.out_channels // module.in_channels
        module.groups = rows if module.transposed else rows // multiplier
    if module.transposed:
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        module.in_channels, module.out_channels = columns * module.groups, rows


def _refresh_linear(module: Any) -> None:
    module.out_features, module.in_features = _weight(module).shape


def _refresh_embedding(module: Any) -> None:
    module.embedding_dim = module.weight.shape[1]


def _refresh_prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


def _refresh_attention(module: Any) -> None:
    """Heads go as a whole: the width of the others is in the scale."""
    packed = module.in_proj_weight
    widths = [
        (packed if packed is not None else getattr(module, f"{name}_proj_weight")).shape[1]
        for name in "qkv"
    ]
    module.embed_dim, module.kdim, module.vdim = widths
    module.num_heads = module.embed_dim // module.head_dim


_REFRESH: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.modules.conv._ConvNd: _refresh_conv,
    nn.Linear: _refresh_linear,
    nn.PReLU: _refresh_prelu,
    nn.Embedding: _refresh_embedding,
    nn.MultiheadAttention: _refresh_attention,
}


def _rewritten(value: object, numbers: Sequence[tuple[int | None, int]]) -> object:
    """An attribute's value with these numbers in the place of its own, by index."""
    if isinstance(value, (list, tuple)):
        changed = list(value)
        for index, number in numbers:
            if index is not None:
                changed[index] = number
        return type(value)(changed)
    return numbers[0][1]
