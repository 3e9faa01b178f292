"""Rules for data movement: the operator itself runs on the labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning_env.tracing.context import Context, Param
from pruning_env.tracing.labels import compact, restride, varying
from pruning_env.tracing.rules.registry import arguments, rule


@rule("transpose", "permute", "t", "numpy_T", "swapaxes", "swapdims", "movedim")
def _permute(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, Param):
        order = node.target(torch.empty(x.shape, device="meta"), *args, **kwargs)  # type: ignore[operator]
        dims = node.target(torch.arange(math.prod(x.shape)).view(x.shape), *args, **kwargs)  # type: ignore[operator]
        strides = torch.empty(x.shape, device="meta").stride()
        if sorted(dims.stride()) == sorted(strides) and len(set(strides)) == len(strides):
            moved = [strides.index(s) for s in dims.stride()]
            return Param(x.name, tuple(order.shape), tuple(x.dims[d] for d in moved), x.floating)
    return _move(context, node, x, *args, **kwargs)


@rule("view", "_unsafe_view")
def _view(context: Context, node: Node, x: Any, shape: Any) -> Tensor:
    labels = context.labels(x)
    if isinstance(shape, torch.dtype):
        return labels
    # Not the operator itself: strides of labels are not those of the activation.
    return _settle(context, node, restride(labels.reshape(shape)))


@rule(
    *"""
    reshape view_as reshape_as flatten unflatten squeeze unsqueeze expand
    expand_as broadcast_to repeat tile repeat_interleave flip unfold atleast_2d
    broadcast_tensors meshgrid
    """.split()
)
def _move(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    others = [context.labels(a) if isinstance(a, Param) else a for a in args]
    labels = context.labels(x)
    moved = node.target(labels, *others, **kwargs)  # type: ignore[operator]
    if isinstance(moved, (tuple, list)):
        return [_settle(context, node, restride(part)) for part in moved]
    return _settle(context, node, restride(moved))


def _settle(context: Context, node: Node, labels: Tensor, principal: int | None = None) -> Tensor:
    """Make labels vary along one dimension by merging over the others.

    When a channel dimension has been split, the pruned tensor must still be a full grid: all slices
    along the other dimensions keep the same channels. By default the innermost dimension is the one
    that may shrink, since code writes the number of groups or heads first.
    """
    dims = varying(labels)
    if len(dims) < 2:
        return labels
    keep = dims[-1] if principal is None else principal
    small = compact(labels)
    first = small
    for d in dims:
        if d != keep:
            first = first.narrow(d, 0, 1)
    context.merge(node, small, first)
    return first.expand(labels.shape)


@rule("roll")
def _roll(context: Context, node: Node, x: Any, shifts: Any, dims: Any = ()) -> Tensor:
    labels = context.labels(x)
    listed = [dims] if isinstance(dims, int) else list(dims)
    if not listed or {d % labels.dim() for d in listed} & set(varying(labels)):
        return context.give_up(node, labels, f"{context.where(node)} moves channels by number")
    return labels


@rule("cat", "concat", "concatenate")
def _cat(context: Context, node: Node, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    shape = context.shape(node)
    dim %= len(shape)
    parts = [t for t in map(context.labels, tensors) if t.dim() == len(shape)]
    for d in range(len(shape)):
        if d != dim and all(t.stride(d) == 0 or t.shape[d] == 1 for t in parts):
            parts = [t.narrow(d, 0, 1) for t in parts]
    joined = restride(torch.cat(parts, dim)).expand(shape)
    others = [d for d in varying(joined) if d != dim]
    return _settle(context, node, joined, others[-1] if others else None)


@rule("stack")
def _stack(context: Context, node: Node, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    shape = context.shape(node)
    joined = restride(torch.stack([context.labels(t) for t in tensors], dim))
    others = [d for d in varying(joined) if d != dim % len(shape)]
    return _settle(context, node, joined, others[-1] if others else None)


@rule("split", "split_with_sizes", "chunk", "tensor_split", "hsplit", "vsplit")
def _split(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
    labels = context.labels(x)
    parts = list(node.target(labels, *args, **kwargs))  # type: ignore[operator]
    dim = arguments(node, [x, *args], kwargs).get("dim", 0) % labels.dim()
    _cut(context, node, labels, dim, [p.shape[dim] for p in parts])
    return parts


@rule("unbind")
def _unbind(context: Context, node: Node, x: Any, dim: int = 0) -> list[Tensor]:
    labels = context.labels(x)
    _cut(context, node, labels, dim % labels.dim(), [1] * labels.shape[dim])
    return list(labels.unbind(dim))


@rule("slice", "narrow")
def _slice(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Tensor:
    labels = context.labels(x)
    part = node.target(labels, *args, **kwargs)  # type: ignore[operator]
    bound = arguments(node, [x, *args], kwargs)
    dim = bound.get("dim", 0) % labels.dim()
    size, cut = labels.shape[dim], part.shape[dim]
    if cut < size and dim in varying(labels):
        start = bound.get("start") or 0
        start = max(0, start + size if start < 0 else start)
        even = bound.get("step", 1) == 1 and cut and size % cut == 0 and start % cut == 0
        _cut(context, node, labels, dim, [cut] * (size // cut) if even else [])
    return part


@rule("select")
def _select(context: Context, node: Node, x: Any, dim: int, index: int) -> Tensor:
    labels = context.labels(x)
    _cut(context, node, labels, dim % labels.dim(), [])
    return labels.select(dim, index)


def _cut(context: Context, node: Node, labels: Tensor, dim: int, sizes: list[int]) -> None:
    """Equal parts must stay equal, so they keep the same places; other parts are frozen."""
    if dim not in varying(labels) or context.in_island(node):
        return
    if len(set(sizes)) == 1 and sizes[0] > 1:
        rows = context.channels_of(node, labels, dim).view(-1, sizes[0])
        context.merge(node, rows[:1], rows)
    else:
        context.freeze(labels, f"{context.where(node)} picks channels by number")
