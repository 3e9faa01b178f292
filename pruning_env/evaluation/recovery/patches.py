"""What a linear layer reads and returns at sampled places: its equations, one row per place.

A convolution, a transposed convolution and a fully connected layer are all products of a matrix of
inputs with a matrix of weights; here are those matrices, whichever of the three it is. Knows
nothing of pruning.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

__all__ = ["inputs_at", "is_linear", "outputs_at", "places_of", "set_weights", "weights_of"]

_LINEAR = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def is_linear(layer: nn.Module) -> bool:
    """Whether `layer` is one whose equations are known: of a plain type, zeros as padding."""
    return type(layer) in _LINEAR and getattr(layer, "padding_mode", "zeros") == "zeros"


def places_of(layer: nn.Module, output: Tensor) -> int:
    """How many places an output has: images times positions."""
    return output.numel() // output.shape[_channel_dim(layer)]


def outputs_at(layer: nn.Module, output: Tensor, places: Tensor) -> Tensor:
    """The rows (R, outputs) of an output at these places, (R,) int64 below `places_of`."""
    return _rows(layer, output)[places]


def inputs_at(layer: Any, x: Tensor, shape: torch.Size, places: Tensor) -> Tensor:
    """What `layer` reads to compute its output at these places.

    Args:
        layer: See `is_linear`.
        x: Its input, batch first.
        shape: Of its output.
        places: (R,) int64.

    Returns:
        (G, R, n): for each of the layer's groups, n inputs (channels times taps, taps last), 0
        where the layer reads padding; times `weights_of` it is the output without bias.
    """
    rows = _rows(layer, x)
    if isinstance(layer, nn.Linear):
        return rows[places].unsqueeze(0)
    positions = torch.unravel_index(places, (shape[0], *shape[2:]))
    index, valid = positions[0][:, None], torch.ones_like(places, dtype=torch.bool)[:, None]
    for dim, (position, size) in enumerate(zip(positions[1:], x.shape[2:], strict=True)):
        taps = torch.arange(layer.kernel_size[dim], device=x.device) * layer.dilation[dim]
        step, before = layer.stride[dim], _padding(layer, dim)
        if isinstance(layer, _ConvTransposeNd):
            scaled = position[:, None] + before - taps
            read, reads = scaled.div(step, rounding_mode="floor"), scaled % step == 0
        else:
            read = position[:, None] * step - before + taps
            reads = torch.ones_like(read, dtype=torch.bool)
        reads = reads & (read >= 0) & (read < size)
        index = (index[:, :, None] * size + read.clamp(0, size - 1)[:, None]).flatten(1)
        valid = (valid[:, :, None] & reads[:, None]).flatten(1)
    read = rows[index].mul_(valid[:, :, None])  # (R, taps, channels)
    groups = layer.groups
    split = read.view(*read.shape[:2], groups, -1).permute(2, 0, 3, 1)
    return split.reshape(groups, len(places), -1)


def weights_of(layer: Any) -> Tensor:
    """The weights as (G, n, outputs per group), n as in `inputs_at`; a copy."""
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        return weight.T.clone().unsqueeze(0)
    taps = math.prod(layer.kernel_size)
    if isinstance(layer, _ConvTransposeNd):
        split = weight.reshape(layer.groups, -1, weight.shape[1], taps).transpose(2, 3)
    else:
        split = weight.reshape(layer.groups, -1, weight.shape[1], taps).permute(0, 2, 3, 1)
    return split.reshape(layer.groups, -1, split.shape[-1]).clone()


def set_weights(layer: Any, weights: Tensor) -> None:
    """The inverse of `weights_of`: write (G, n, outputs per group) into the layer."""
    with torch.no_grad():
        if isinstance(layer, nn.Linear):
            layer.weight.copy_(weights[0].T)
            return
        taps = math.prod(layer.kernel_size)
        split = weights.view(layer.groups, -1, taps, weights.shape[-1])
        if isinstance(layer, _ConvTransposeNd):
            order = split.transpose(2, 3)
        else:
            order = split.permute(0, 3, 1, 2)
        layer.weight.copy_(order.reshape(layer.weight.shape))


def _channel_dim(layer: nn.Module) -> int:
    return 1 if isinstance(layer, _ConvNd) else -1


def _rows(layer: nn.Module, values: Tensor) -> Tensor:
    """(places, channels)."""
    dim = _channel_dim(layer)
    return values.movedim(dim, -1).reshape(-1, values.shape[dim])


def _padding(layer: Any, dim: int) -> int:
    """Zeros before the first input."""
    if layer.padding == "same":
        return int(layer.dilation[dim] * (layer.kernel_size[dim] - 1) // 2)
    return 0 if layer.padding == "valid" else int(layer.padding[dim])
