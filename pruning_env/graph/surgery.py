"""Surgery: really smaller modules, and their masked twins.

Pruning copies a module's structure and takes one slice per tensor; weights that go are never
copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.graph.copies import copy_module, forget, like, structure_copy, walk
from pruning_env.graph.refreshing import refresh, resize, rewritten
from pruning_env.graph.structure import ChannelStructure, Keep


def prune(graph: ChannelStructure, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.prune`."""
    modules, tensors = walk(model)
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
            small[name] = like(tensor, _cut(tensor, cut))
            if cut:
                changed |= dict.fromkeys(graph.cuts.owners[name])
    twins: dict[int, Any] = {id(tensor): small[name] for name, tensor in tensors.items()}
    pruned = copy_module(model, twins)
    forget(pruned, graph.caches)
    for path in changed:
        refresh(twins[id(modules[path])])
    for (path, name), numbers in graph.cuts.attributes.items():
        module = twins[id(modules[path])]
        counts = [(index, int(kept[channels].sum())) for index, channels in numbers]
        setattr(module, name, rewritten(getattr(module, name), counts))
    for norm in graph.normalised:
        resize(twins[id(modules[norm.module])], (int(kept[norm.entry].sum()),))
    for adapter in graph.widened:
        entry, exit = _kept_places(kept, adapter.entry), _kept_places(kept, adapter.exit)
        if entry is not None or exit is not None:
            inner = pruned.get_submodule(adapter.module)
            pruned.set_submodule(adapter.module, FullWidth(inner, len(adapter.entry), entry, exit))
    return pruned


def mask(graph: ChannelStructure, model: nn.Module, keep: Keep) -> nn.Module:
    """See `ChannelGraph.mask`."""
    _, dense = walk(model)
    _check(graph, dense)
    tensors = {name: like(tensor, tensor.detach().clone()) for name, tensor in dense.items()}
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
