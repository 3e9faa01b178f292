"""Gates: how the loss would move if a channel were turned down where it is read.

The gate of a channel multiplies it behind its norms and activations, in every branch that reads it;
removing the channel is gate 0. Knows nothing of what the gradients are used for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.evaluation.gradients import computing_gradients, laid_out
from pruning_env.graph.channel_graph import ChannelGraph, Slot
from pruning_env.graph.functional import call_with

Loss = Callable[[Tensor, Tensor], Tensor]

_CHUNK = 2**19
"""Numbers in the images of one backward pass, about: their activations are in memory at once."""

_INPUT_RANKS: dict[type[nn.Module], int] = {
    nn.Linear: 2,
    nn.Conv1d: 3,
    nn.Conv2d: 4,
    nn.Conv3d: 5,
    nn.ConvTranspose1d: 3,
    nn.ConvTranspose2d: 4,
    nn.ConvTranspose3d: 5,
}
"""Layers that are linear in their input, and its dimensions: batch first, channels second."""


class NotFiniteError(ValueError):
    """A gradient is NaN or infinite."""


def gate_gradients(
    graph: ChannelGraph,
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    batch: int,
    keep: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Gradient of the loss by every channel's gate, summed over each batch of images.

    Layers are linear in their weights as in their input, so the gradient of a gate is both the sum
    of w * dL/dw over the weights that read the channel, and the sum of x * dL/dx over the channel
    as it is read. The second needs no gradient by weights and keeps images apart, so that batches
    of any size cost one pass forward and one back over large chunks: 1.5 to 3 forward passes in
    all. It is taken wherever every reader is a plain convolution or linear layer that is called
    with one row per image; elsewhere (attention, weights used by functions, layers of the user's
    own), each batch is one pass on its own, by weights.

    Args:
        graph: channel graph of the dense network.
        model: that, or the network pruned to `keep`; left exactly as it was, read in eval mode.
        images: (N, ...) on the model's device, N at least 1.
        labels: (N,).
        loss: (n, ...) outputs and (n,) labels to a scalar; additive over images.
        batch: images whose gradients are added up, at least 1.
        keep: (C,) bool, the channels that `model` has; None: all.

    Returns:
        (ceil(N / batch), C) float64; 0 for channels that are gone or that eval mode does not read.

    Raises:
        NotFiniteError: a gradient is not finite; the message names the layer.
    """
    parameters = dict(model.named_parameters())
    readers = [slot for slot in graph.slots if slot.consumes and slot.tensor in parameters]
    if keep is not None:
        kept = np.append(keep, True)  # channel -1 reads the last entry: never removed
        readers = [replace(slot, channels=slot.channels[kept[slot.channels]]) for slot in readers]
    # Clones, so that a module that writes to its buffers in eval mode does not reach the model.
    state = {name: tensor.detach() for name, tensor in parameters.items()}
    state |= {name: buffer.clone() for name, buffer in model.named_buffers()}
    with reading(model), computing_gradients():
        taps = _taps(graph, model, readers, state, images[:batch])
        if taps is not None:
            gates = _by_inputs(graph, model, taps, state, images, labels, loss, batch)
            if gates is not None:
                return gates
        return _by_weights(graph, model, readers, state, images, labels, loss, batch)


@dataclass(frozen=True)
class _Taps:
    """The readers whose input is watched, and those that eval mode does not call.

    Attributes:
        slots: reader by module name.
        idle: names of weights that no call of their module uses.
    """

    slots: dict[str, Slot]
    idle: tuple[str, ...]


def _taps(
    graph: ChannelGraph,
    model: nn.Module,
    readers: list[Slot],
    state: dict[str, Tensor],
    images: Tensor,
) -> _Taps | None:
    """Where to watch inputs; None where that would miss something."""
    slots = {}
    for slot in readers:
        path, _, attribute = slot.tensor.rpartition(".")
        plain = type(model.get_submodule(path)) in _INPUT_RANKS and attribute == "weight"
        if not plain or slot.role != "in" or slot.tensor in graph.aliases:
            return None
        slots[path] = slot
    called: set[str] = set()
    fits = True

    def look(path: str, x: Tensor) -> Tensor:
        nonlocal fits
        called.add(path)
        rank = _INPUT_RANKS[type(model.get_submodule(path))]
        fits &= x.ndim == rank and len(x) == len(images)
        return x

    with torch.no_grad(), _watching(model, slots, look):
        call_with(model, state, images)
    idle = tuple(slot.tensor for path, slot in slots.items() if path not in called)
    return _Taps({path: slots[path] for path in slots if path in called}, idle) if fits else None


def _by_inputs(
    graph: ChannelGraph,
    model: nn.Module,
    taps: _Taps,
    state: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    batch: int,
    copies: bool = False,
) -> NDArray[np.float64] | None:
    """Gates from what layers read; None if a weight is used elsewhere, too.

    With `copies`, layers read copies, which nobody overwrites.
    """
    batches = -(-len(images) // batch)
    gates = np.zeros((batches, graph.num_channels))
    # A module that is never called may still lend its weight to a function, which shows here.
    lent = {name: state[name].clone().requires_grad_() for name in taps.idle}
    images = laid_out(images, model) if lent else images
    seen: list[tuple[str, Tensor, int]] = []

    def tap(path: str, x: Tensor) -> Tensor:
        # An alias, so that its gradient is this reader's alone and not that of other branches.
        x = x.clone() if copies else x.view_as(x) if x.requires_grad else x.detach()
        x = x if x.requires_grad else x.requires_grad_()
        seen.append((path, x, x._version))
        return x

    step = max(1, _CHUNK // images[0].numel() // batch) * batch
    for start in range(0, len(images), step):
        part = slice(start, start + step)
        seen.clear()
        with _watching(model, taps.slots, tap):
            value = loss(call_with(model, state | lent, images[part]), labels[part])
        if any(x._version != version for _, x, version in seen):
            return _by_inputs(graph, model, taps, state, images, labels, loss, batch, copies=True)
        inputs = [x for _, x, _ in seen]
        gradients = torch.autograd.grad(value, [*inputs, *lent.values()], allow_unused=True)
        if any(g is not None for g in gradients[len(inputs) :]):
            return None
        for (path, x, _), gradient in zip(seen, gradients, strict=False):
            if gradient is None:
                continue
            slot = taps.slots[path]
            slopes = (x.detach() * gradient).reshape(*x.shape[:2], -1).sum(2)
            # A grouped convolution reads several inputs with the same column of weights.
            slopes = slopes.reshape(len(x), -1, len(slot.channels)).sum(1)
            first = start // batch
            sums = torch.stack([rows.sum(0) for rows in slopes.split(batch)])
            gates[first : first + len(sums)] += channel_sums(graph, slot, sums)
    return gates


def _by_weights(
    graph: ChannelGraph,
    model: nn.Module,
    readers: list[Slot],
    state: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    loss: Loss,
    batch: int,
) -> NDArray[np.float64]:
    """Gates from the gradients by the weights that read the channels, one pass per batch."""
    weights = {slot.tensor: state[slot.tensor].clone().requires_grad_() for slot in readers}
    images = laid_out(images, model)
    gates = []
    for part, targets in zip(images.split(batch), labels.split(batch), strict=True):
        value = loss(call_with(model, state | weights, part), targets)
        # Readers that eval mode does not use (auxiliary heads) have no gradient: zero.
        gradients = torch.autograd.grad(
            value, list(weights.values()), allow_unused=True, materialize_grads=True
        )
        products = {
            name: weight.detach() * gradient
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
        }
        sums = [
            channel_sums(graph, slot, rows_of(products[slot.tensor], slot.dim).sum(1))
            for slot in readers
        ]
        gates.append(np.sum(sums, axis=0))
    return np.stack(gates)


def channel_sums(graph: ChannelGraph, slot: Slot, values: Tensor) -> NDArray[np.float64]:
    """Add up one value per index of the slot's dimension, (..., n), into (..., C) channel sums.

    Raises:
        NotFiniteError: a value is not finite; the message names the layer.
    """
    owned = slot.channels >= 0
    numbers = values.detach().to("cpu", torch.float64).numpy()[..., owned]
    if not np.isfinite(numbers).all():
        raise NotFiniteError(
            f"layer {slot.tensor.rpartition('.')[0]!r}: importance is not finite in {slot.tensor}"
        )
    shape = (*numbers.shape[:-1], graph.num_channels)
    places = np.arange(np.prod(shape[:-1], dtype=int))[:, None] * graph.num_channels
    index = places + slot.channels[owned]
    sums = np.bincount(index.ravel(), numbers.ravel(), int(np.prod(shape)))
    return sums.astype(np.float64, copy=False).reshape(shape)


def rows_of(tensor: Tensor, dim: int) -> Tensor:
    """The tensor as a matrix with one row per index of `dim`."""
    return tensor.movedim(dim, 0).reshape(tensor.shape[dim], -1)


@contextlib.contextmanager
def _watching(
    model: nn.Module, paths: dict[str, Slot], look: Callable[[str, Tensor], Tensor]
) -> Iterator[None]:
    """Inside, every named module's input goes through `look`."""

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        return lambda _, inputs: (look(path, inputs[0]), *inputs[1:])

    with contextlib.ExitStack() as hooks:
        for path in paths:
            handle = model.get_submodule(path).register_forward_pre_hook(hook(path))
            hooks.callback(handle.remove)
        yield


@contextlib.contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode afterwards; cuDNN is deterministic."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.backends.cudnn.flags(
            enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True
        ):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
