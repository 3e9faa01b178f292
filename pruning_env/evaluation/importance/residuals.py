"""Residuals: what of a channel the other channels, where it is read, cannot say in its stead.

Knows nothing of what the numbers are used for.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.evaluation.recovery.patches import inputs_at, is_linear, places_of, weights_of
from pruning_env.graph.channel_graph import ChannelGraph, Slot

__all__ = ["residuals"]

_ROWS = 8192  # places per layer, drawn from all images and positions
_BATCH = 128  # images per forward pass
_RIDGE = 1e-4  # of the mean variance: float32 sums say no more


@dataclass
class _Reader:
    """A layer that reads channels.

    Attributes:
        channels: (U,) int64, those that it reads.
        weights: (U, M) float64, what they are multiplied with.
        moments: (U, U) float64, covariance of the channels where it reads them.
    """

    channels: NDArray[np.int64]
    weights: NDArray[np.float64]
    moments: NDArray[np.float64]


def residuals(graph: ChannelGraph, model: nn.Module, images: Tensor) -> NDArray[np.float64]:
    """How much of what readers say is lost once a channel is gone, with those gone before it.

    Within each group channels are eliminated one by one, the one first whose loss is least: of the
    variance of what its readers say, the share that the channels left cannot make good by other
    weights, summed over readers. A channel's score is the sum of the losses so far.

    Args:
        graph: Channel graph of `model`.
        model: The dense network, in eval mode.
        images: (N, ...) normalised, on the model's device.

    Returns:
        (C,) float64, at least 0.

    Raises:
        ValueError: A group has no reader that is one of torch's linear layers or convolutions.
    """
    readers = _readers(graph, model, images)
    scores = np.zeros(graph.num_channels)
    for group in graph.groups:
        here = np.arange(group.start, group.start + group.size)
        reading = [reader for reader in readers if np.isin(here, reader.channels).any()]
        if not reading:
            raise ValueError(
                f"group {group.name!r}: no layer reads it that is one of torch's linear layers or "
                "convolutions; kinds that need none: l1, l2, taylor"
            )
        scores[here] = _eliminate(here, [_Elimination(reader, here) for reader in reading])
    return scores


class _Elimination:
    """One reader, from which channels go (optimal brain surgeon, with whole channels).

    Args:
        reader: Left as it is.
        here: (n,) the channels of a group.
    """

    def __init__(self, reader: _Reader, here: NDArray[np.int64]) -> None:
        size = len(reader.channels)
        level = max(float(np.trace(reader.moments)) / size, 1e-30)
        self._inverse = np.linalg.inv(reader.moments + _RIDGE * level * np.eye(size))
        self._weights = reader.weights.copy()
        said = float(
            np.einsum("um,uv,vm->", reader.weights, reader.moments, reader.weights, optimize=True)
        )
        self._said = max(said, 1e-30)
        place = {channel: number for number, channel in enumerate(reader.channels.tolist())}
        self._places = np.array([place.get(channel, -1) for channel in here.tolist()])

    def losses(self) -> NDArray[np.float64]:
        """(n,) share of the variance that is lost if a channel goes; 0 where it is not read."""
        energy = np.square(self._weights).sum(1) / np.diagonal(self._inverse)
        return np.where(self._places < 0, 0.0, energy[self._places] / self._said)

    def remove(self, number: int) -> None:
        """Let the other channels speak for the `number`-th of the group."""
        place = self._places[number]
        if place < 0:
            return
        column = self._inverse[:, place] / self._inverse[place, place]
        self._weights -= np.outer(column, self._weights[place])
        self._inverse -= np.outer(column, self._inverse[place])
        self._inverse[place, place] = 1.0  # out of the others' way, and never looked at again


def _eliminate(here: NDArray[np.int64], readers: list[_Elimination]) -> NDArray[np.float64]:
    """Scores of the channels `here`."""
    scores, left, lost = np.zeros(len(here)), np.ones(len(here), bool), 0.0
    for _ in here:
        losses = np.where(left, np.sum([reader.losses() for reader in readers], axis=0), np.inf)
        first = int(np.argmin(losses))
        lost += float(losses[first])
        scores[first], left[first] = lost, False
        for reader in readers:
            reader.remove(first)
    return scores


def _readers(graph: ChannelGraph, model: nn.Module, images: Tensor) -> list[_Reader]:
    slots = {
        slot.tensor.removesuffix(".weight"): slot
        for slot in graph.slots
        if slot.role == "in" and slot.tensor.endswith(".weight")
    }
    layers = {path: model.get_submodule(path) for path in slots}
    layers = {path: layer for path, layer in layers.items() if is_linear(layer)}
    generator = torch.Generator().manual_seed(0)
    rows = math.ceil(_ROWS * min(1.0, _BATCH / len(images)))
    read: dict[str, list[Tensor]] = {}

    def look(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        places = torch.randperm(places_of(layer, output), generator=generator)[:rows]
        values = inputs_at(layer, inputs[0], output.shape, places.to(output.device))
        read.setdefault(path, []).append(_by_unit(layer, slots[path], values.movedim(2, 0))[1])

    with torch.inference_mode(), ExitStack() as hooks:
        for path, layer in layers.items():
            hooks.callback(layer.register_forward_hook(partial(look, path)).remove)
        for batch in images.split(_BATCH):
            model(batch)
    readers = []
    for path, parts in read.items():
        channels, weights = _by_unit(
            layers[path], slots[path], weights_of(layers[path]).movedim(1, 0)
        )
        moments = torch.cov(torch.cat(parts, 1)).reshape(len(channels), -1).double()
        readers.append(_Reader(channels, weights.double().cpu().numpy(), moments.cpu().numpy()))
    return readers


def _by_unit(layer: Any, slot: Slot, values: Tensor) -> tuple[NDArray[np.int64], Tensor]:
    """Channels that a layer reads, (U,), and its values (n, G, ...) as one row per channel.

    Inputs that cannot be removed are left out; of channels that have several inputs, as behind a
    flattening, those that some of them lack are too.
    """
    taps = math.prod(layer.kernel_size) if hasattr(layer, "kernel_size") else 1
    owners = slot.channels[: len(values) // taps]
    channels, counts = np.unique(owners[owners >= 0], return_counts=True)
    times = int(counts.min(initial=1))
    rows = np.concatenate(
        [np.flatnonzero(owners == channel)[:times] for channel in channels]
        or [np.zeros(0, np.int64)]
    )
    split = values.reshape(len(owners), -1)[torch.from_numpy(rows).to(values.device)]
    return channels, split.reshape(len(channels), -1)
