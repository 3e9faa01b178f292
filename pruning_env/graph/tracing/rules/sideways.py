"""Convolutions that run along the channels, as if these were places: gates and mixers of tokens.

What the operator takes for channels is something else there, such as the tokens of three scales, or
a dimension of length 1 that was put in for its sake.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import along, spread, varying
from pruning_env.graph.tracing.trace import Param
from pruning_env.graph.tracing.weights import Weight


def sideways(
    context: Context,
    node: Node,
    x: Any,
    weight: Param | Weight,
    stride: Any,
    padding: Any,
    dilation: Any,
) -> Tensor | None:
    """The labels after a convolution along the channels; None if it is none, or makes fewer.

    A kernel of length 1 gives every channel the same weights. A longer one mixes neighbours, which
    suits any number of channels: where it makes one value of each, as the gate of ECA does (Wang et
    al. 2020, "ECA-Net"), it runs on those that are kept, next to each other.
    """
    labels, shape = context.labels(x), context.shape(node)
    dims = varying(labels)
    space = len(weight.shape) - 2
    if not isinstance(weight, Param) or len(dims) != 1 or dims[0] < labels.dim() - space:
        return None
    place = dims[0] - (labels.dim() - space)
    kernel = weight.shape[2 + place]
    step, apart = (_at(value, place) for value in (stride, dilation))
    edge = apart * (kernel - 1) / 2 if padding == "same" else _at(padding, place)
    if step != 1 or 2 * edge != apart * (kernel - 1):
        return None
    channels = along(labels, dims[0])
    if kernel > 1:
        if math.prod(weight.shape) > kernel:
            return None
        reason = f"neighbouring channels are mixed by {context.where(node)}"
        context.take_statistics(node, channels, reason)
    made = context.fresh(weight.shape[0])
    context.own(node, weight, 0, made, "out")
    context.freeze(made, f"a second channel dimension at {context.where(node)}")
    macs = math.prod(shape) // weight.shape[0] * math.prod(weight.shape)
    context.trace.products.append(((channels,), macs // len(channels)))
    return spread(channels, shape, dims[0])


def _at(value: Any, place: int) -> int:
    """An argument of a convolution, which may be one number for all dimensions; 0 for a word."""
    if isinstance(value, (list, tuple)):
        return int(value[place if len(value) > 1 else 0])
    return 0 if isinstance(value, str) else int(value)
