"""Rules for operators that cut a tensor into parts: splits, slices, single indices."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import varying
from pruning_env.graph.tracing.rules.movement import moved_parameter
from pruning_env.graph.tracing.rules.registry import arguments, operator_name, register_operator
from pruning_env.graph.tracing.trace import Param


@register_operator(
    "split", "split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit", "unsafe_chunk"
)
def _split(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
    labels = context.labels(x)
    parts = list(node.target(labels, *args, **kwargs))  # type: ignore[operator]
    dim = arguments(node, [x, *args], kwargs).get("dim", 0) % labels.dim()
    _cut(context, node, labels, dim, [p.shape[dim] for p in parts])
    return parts


@register_operator("unbind")
def _unbind(context: Context, node: Node, x: Any, dim: int = 0) -> list[Tensor]:
    labels = context.labels(x)
    _cut(context, node, labels, dim % labels.dim(), [1] * labels.shape[dim])
    return list(labels.unbind(dim))


_SLICES = ("slice", "narrow")


@register_operator(*_SLICES)
def _slice(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    labels = context.labels(x)
    part = node.target(labels, *args, **kwargs)  # type: ignore[operator]
    bound = arguments(node, [x, *args], kwargs)
    dim = bound.get("dim", 0) % labels.dim()
    size, length = labels.shape[dim], part.shape[dim]
    if length == size:
        return x  # a parameter stays one
    if dim in varying(labels):
        start = bound.get("start") or 0
        start = max(0, start + size if start < 0 else start)
        sizes = [start, length, size - start - length]
        if bound.get("step", 1) != 1 or not length:
            sizes = []
        _cut(context, node, labels, dim, [n for n in sizes if n])
    return part


@register_operator("select")
def _select(context: Context, node: Node, x: Any, dim: int, index: int) -> Any:
    if isinstance(x, Param) and x.shape[dim] == 1:
        return moved_parameter(context, node, x, (dim, index), {})
    labels = context.labels(x)
    _cut(context, node, labels, dim % labels.dim(), [])
    return labels.select(dim, index)


def _cut(context: Context, node: Node, labels: Tensor, dim: int, sizes: list[int]) -> None:
    """Parts of a channel dimension, by their sizes; none for a choice that is no range.

    Equal parts must stay equal, so they keep the same places. Others are channels of their own,
    whose numbers must be in attributes that follow; or, in another attempt, all keep the same
    places in each multiple of their common divisor, as fractions of a shape do.
    """
    if dim not in varying(labels) or context.in_island(node):
        return
    unit = math.gcd(*sizes)
    equal = len(set(sizes)) == 1 and (operator_name(node) not in _SLICES or len(sizes) == 2)
    if not sizes or (equal and unit == 1):
        context.misplace(node, labels, f"{context.where(node)} picks channels by number")
        return
    channels = context.channels_of(node, labels, dim)
    parts = list(channels.split(sizes))
    if not equal and context.takes_apart(node, parts, fractions=unit > 1):
        ends = [channels[:end] for end in accumulate(sizes)]
        context.number(node, labels, [*parts, *ends[1:]])
        return
    rows = channels.view(-1, unit)
    context.merge(node, rows[:1], rows)
    context.number(node, labels, [*parts, channels])
