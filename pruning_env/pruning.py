"""Surgery: really smaller modules, and their masked twins.

Pruning copies a module's structure and takes one slice per tensor; weights that go are never
copied.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

if TYPE_CHECKING:
    from pruning_env.channels import ChannelGraph

Keep = NDArray[np.bool_]


def prune(graph: ChannelGraph, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.prune`."""
    tensors = _checked_tensors(graph, model)
    kept = np.append(keep, True)  # channel -1 reads the last entry: never removed
    indices: dict[bytes, Tensor] = {}

    def index(channels: NDArray[np.int64]) -> Tensor | None:
        key = channels.tobytes()
        if key not in indices:
            indices[key] = torch.from_numpy(np.flatnonzero(kept[channels]))
        return None if len(indices[key]) == len(channels) else indices[key]

    slices: dict[str, list[tuple[int, Tensor]]] = {}
    for slot in graph.slots:
        chosen = index(slot.channels)
        if chosen is not None:
            slices.setdefault(slot.tensor, []).append((slot.dim, chosen))
    small = {name: _sliced(tensor, slices.get(name, [])) for name, tensor in tensors.items()}
    pruned = structure_copy(model, tensors, small)
    shared = (alias for name in slices for alias in graph.aliases.get(name, ()))
    for path in {name.rpartition(".")[0] for name in (*slices, *shared)}:
        _refresh(pruned.get_submodule(path))
    for norm in graph.normalised:
        _resize(pruned.get_submodule(norm.module), (int(kept[norm.entry].sum()),))
    for adapter in graph.widened:
        entry, exit = index(adapter.entry), index(adapter.exit)
        if entry is not None or exit is not None:
            inner = pruned.get_submodule(adapter.module)
            pruned.set_submodule(adapter.module, FullWidth(inner, len(adapter.entry), entry, exit))
    return pruned


def mask(graph: ChannelGraph, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.mask`."""
    dense = _checked_tensors(graph, model)
    tensors = {name: _sliced(tensor, []) for name, tensor in dense.items()}
    kept = np.append(keep, True)
    with torch.no_grad():
        for slot in graph.slots:
            gone = np.flatnonzero(~kept[slot.channels])
            if slot.consumes and gone.size:
                tensor = tensors[slot.tensor]
                tensor.index_fill_(slot.dim, torch.from_numpy(gone).to(tensor.device), 0)
    masked = structure_copy(model, dense, tensors)
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
    return [*model.named_parameters(), *model.named_buffers()]


def _checked_tensors(graph: ChannelGraph, model: nn.Module) -> dict[str, Tensor]:
    tensors = dict(named_tensors(model))
    shapes = graph.shapes
    for name in shapes.keys() | tensors.keys():
        given = tuple(tensors[name].shape) if name in tensors else "nothing"
        if given != shapes.get(name, "nothing"):
            raise ValueError(
                f"model is not the one that was traced: {name} is {given}, "
                f"the graph knows {shapes.get(name, 'nothing')}"
            )
    return tensors


def _sliced(tensor: Tensor, slices: list[tuple[int, Tensor]]) -> Tensor:
    value = tensor.detach()
    for dim, index in sorted(slices, key=lambda s: len(s[1]) / tensor.shape[s[0]]):
        value = value.index_select(dim, index.to(value.device))
    if not slices:
        value = value.clone()
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
        if name == "_modules":
            attributes[name] = {
                key: None if child is None else _copy_module(child, memo)
                for key, child in value.items()
            }
        elif name in ("_parameters", "_buffers"):
            attributes[name] = {key: memo.get(id(tensor)) for key, tensor in value.items()}
        elif isinstance(value, _ATOMS) or (type(value) is tuple and all(map(_is_atom, value))):
            attributes[name] = value
        elif type(value) in _CONTAINERS and not value:  # hooks, mostly
            attributes[name] = type(value)()
        elif isinstance(value, Tensor) and id(value) not in memo:  # deepcopy refuses results
            attributes[name] = value.detach().clone()
        else:
            attributes[name] = copy.deepcopy(value, memo)
    return twin


def _is_atom(value: object) -> bool:
    return isinstance(value, _ATOMS)


_ATOMS = (bool, int, float, str, bytes, type(None), torch.dtype, torch.device, type)
_CONTAINERS = (OrderedDict, dict, list, set)


def _refresh(module: nn.Module) -> None:
    """Bring a module's numbers of channels in line with its tensors."""
    for kind, refresh in _REFRESH.items():
        if isinstance(module, kind):
            refresh(module)
            return
    tensors = (getattr(module, name, None) for name in ("weight", "bias", "running_mean"))
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            _resize(module, tuple(tensor.shape))
            return


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
    rows, columns = module.weight.shape[:2]
    depthwise = module.groups > 1 and module.groups == module.in_channels
    if depthwise:
        multiplier = module.out_channels // module.in_channels
        module.groups = rows if module.transposed else rows // multiplier
    if module.transposed:
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        module.in_channels, module.out_channels = columns * module.groups, rows


def _refresh_linear(module: Any) -> None:
    module.out_features, module.in_features = module.weight.shape


def _refresh_embedding(module: Any) -> None:
    module.embedding_dim = module.weight.shape[1]


def _refresh_prelu(module: Any) -> None:
    module.num_parameters = len(module.weight)


_REFRESH: dict[type[nn.Module], Callable[[Any], None]] = {
    nn.modules.conv._ConvNd: _refresh_conv,
    nn.Linear: _refresh_linear,
    nn.PReLU: _refresh_prelu,
    nn.Embedding: _refresh_embedding,
}
