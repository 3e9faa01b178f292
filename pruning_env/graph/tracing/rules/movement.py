"""Rules for data movement: the operator itself runs on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import along, compact, fixed, restride, varying
from pruning_env.graph.tracing.rules.registry import arguments, operator_name, register_operator
from pruning_env.graph.tracing.trace import Param


@register_operator(
    *"transpose permute t numpy_T swapaxes swapdims movedim moveaxis adjoint mT mH".split()
)
def _permute(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, Param):
        return moved_parameter(context, node, x, args, kwargs)
    return node.target(x, *args, **kwargs)  # type: ignore[operator]


def moved_parameter(
    context: Context, node: Node, x: Param, args: Any, kwargs: Any
) -> Param | Tensor:
    """What a parameter becomes; where it is no parameter any more, with one label per element."""
    moved = rearranged(node, x, args, kwargs)
    if moved is not None:
        return moved
    if not x.floating:
        return fixed(context.shape(node))
    return node.target(context.labels(x).contiguous(), *args, **kwargs)  # type: ignore[operator]


def rearranged(node: Node, x: Param, args: Any, kwargs: Any) -> Param | None:
    """A parameter whose dimensions were only permuted, or lost or won length 1, stays one."""
    stored = torch.empty(x.shape, device="meta")
    moved = node.target(stored, *args, **kwargs)  # type: ignore[operator]
    places = {stored.stride(d): x.dims[d] for d in range(stored.dim()) if stored.shape[d] > 1}
    lengths = {stored.stride(d): stored.shape[d] for d in range(stored.dim())}
    ones = [x.dims[d] for d in range(stored.dim()) if stored.shape[d] == 1]
    dims = []
    for size, stride in zip(moved.shape, moved.stride(), strict=True):
        if size == 1:
            dims.append(ones.pop(0) if ones else -1)
        elif stride in places and lengths[stride] == size:
            dims.append(places.pop(stride))
        else:
            break
    if places or len(dims) < moved.dim():
        return None
    return Param(x.name, tuple(moved.shape), tuple(dims), x.floating, x.stored)


@register_operator("view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze")
def _view(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], torch.dtype):
        return x
    if isinstance(x, Param):
        moved = moved_parameter(context, node, x, args, kwargs)
        if len([n for n in x.shape if n > 1]) == 1 and x.floating:  # a value per channel
            line = context.labels(moved)
            context.number(node, line, [along(line, d) for d in varying(line)])
        return moved
    shape = context.shape(node)
    # Not the operator itself: strides of labels are not those of the activation.
    labels = restride(x.reshape(shape))
    before, dims = varying(x), varying(labels)
    written = _written(node, args, kwargs)
    if len(dims) > 1 and len(before) == 1:
        # All slices along the other dimensions must keep the same channels, or no full grid is
        # left.
        open_dims = [d for d in dims if d not in written]
        likely = open_dims[0] if written and len(open_dims) == 1 else None
        labels = context.settle_split(node, labels, likely, numbered=_picked(node, dims))
    if any(d in dims for d in written):
        held = [along(labels, d) for d in written if d in varying(labels)]
        context.number(node, x, [*held, *(along(x, d) for d in before)])
    return labels


_ORDERS = (
    *("transpose", "permute", "movedim", "swapaxes"),
    *("contiguous", "clone", "squeeze", "unsqueeze"),
)


def _picked(node: Node, dims: Sequence[int]) -> set[int]:
    """Those of `dims` that code takes apart by number: query, key and value of one layer."""
    # Each of them by a length of its own, which tells them apart wherever they are moved to.
    size = len(node.meta["val"].shape)
    start = torch.empty([1 if d not in dims else 2 + d for d in range(size)], device="meta")
    found: set[int] = set()
    waiting = [(user, start) for user in node.users]
    while waiting:
        user, x = waiting.pop()
        bound = arguments(user, user.args, dict(user.kwargs)) if _is_operator(user) else {}
        name = operator_name(user)
        if name in ("select", "unbind"):
            length = x.shape[bound.get("dim", 0)]
            found |= {length - 2} if length > 1 else set()
        elif name in _ORDERS and user.all_input_nodes == [user.args[0]]:
            moved = user.target(x, *user.args[1:], **user.kwargs)  # type: ignore[operator]
            waiting += [(after, moved) for after in user.users]
    return found


def _is_operator(node: Node) -> bool:
    return hasattr(node.target, "_schema")


def _written(node: Node, args: Any, kwargs: Any) -> list[int]:
    """Dimensions of the result whose length the call states, as a number and not as -1."""
    bound = arguments(node, [None, *args], kwargs)
    sizes = bound.get("sizes", bound.get("shape", bound.get("size")))
    first = bound.get("dim", 0) if "sizes" in bound else 0
    if not isinstance(sizes, (list, tuple)):
        return []
    first += len(node.meta["val"].shape) - len(sizes) + 1 if first < 0 else 0
    return [first + i for i, size in enumerate(sizes) if size != -1]


@register_operator("view_as", "reshape_as")
def _view_as(context: Context, node: Node, x: Any, other: Any) -> Tensor:
    labels = restride(context.labels(x).reshape(context.shape(node)))
    return context.join(node, [labels, context.labels(other)])


@register_operator("squeeze")
def _squeeze(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, Param):
        return moved_parameter(context, node, x, args, kwargs)
    dims = arguments(node, [x, *args], kwargs).get("dim")
    dims = range(x.dim()) if dims is None else [dims] if isinstance(dims, int) else dims
    for d in {d % x.dim() for d in dims} & set(varying(x)):
        # A single channel left would vanish as a dimension, so two have to stay.
        channels = along(x, d)
        first = channels[channels != channels[0]][:1]
        context.freeze(
            torch.cat([channels[:1], first]),
            f"{context.where(node)} would drop the dimension if a single channel were left",
        )
    return node.target(x, *args, **kwargs)  # type: ignore[operator]


@register_operator(
    "expand", "broadcast_to", "repeat", "tile", "repeat_interleave", "flip", "fliplr", "flipud"
)
def _copies(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if any(isinstance(a, (Tensor, Param)) for a in (*args, *kwargs.values())):
        return context.give_up(node, [x, args, kwargs])  # numbers of copies that are data
    labels = context.labels(x)
    moved = restride(node.target(labels, *args, **kwargs))  # type: ignore[operator]
    if any(d in varying(moved) for d in _written(node, args, kwargs)):
        context.number(node, labels, [along(moved, d) for d in varying(moved)])
    if isinstance(x, Tensor) and len(varying(moved)) > 1:
        moved = context.settle(node, moved, varying(moved)[-1])
    return moved


@register_operator("unfold")
def _unfold(context: Context, node: Node, x: Any, dim: int, size: int, step: int) -> Tensor:
    labels = context.labels(x)
    if dim % labels.dim() in varying(labels):
        return context.give_up(node, x, f"{context.where(node)} runs over channels")
    return labels.unfold(dim, size, step)


@register_operator("roll")
def _roll(context: Context, node: Node, x: Any, shifts: Any, dims: Any = ()) -> Tensor:
    labels = context.labels(x)
    listed = [dims] if isinstance(dims, int) else list(dims)
    if not listed or {d % labels.dim() for d in listed} & set(varying(labels)):
        return context.give_up(node, labels, f"{context.where(node)} moves channels by number")
    return labels


@register_operator("cat", "concat", "concatenate")
def _cat(context: Context, node: Node, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    shape = context.shape(node)
    dim %= len(shape)
    parts = [t for t in map(context.labels, tensors) if t.dim() == len(shape)]
    for d in range(len(shape)):
        if d != dim and all(t.stride(d) == 0 or t.shape[d] == 1 for t in parts):
            parts = [t.narrow(d, 0, 1) for t in parts]
    return _joined(context, node, restride(torch.cat(parts, dim)).expand(shape), dim)


@register_operator("stack")
def _stack(context: Context, node: Node, tensors: Sequence[Any], dim: int = 0) -> Tensor:
    labels = restride(torch.stack([context.labels(t) for t in tensors], dim))
    joined = _joined(context, node, labels, dim % labels.dim())
    context.add_up(joined)  # what is stacked is added up or averaged in the end
    return joined


def _joined(context: Context, node: Node, labels: Tensor, dim: int) -> Tensor:
    """Tensors side by side along another dimension than their channels keep the same channels."""
    others = [d for d in varying(labels) if d != dim]
    return context.settle(node, labels, others[-1]) if others else labels


@register_operator("take_along_dim")
def _take_along_dim(context: Context, node: Node, x: Any, index: Any, dim: int) -> Any:
    return _gather(context, node, x, dim, index)


@register_operator("index_select", "gather")
def _gather(context: Context, node: Node, x: Any, dim: int, index: Any, *_: Any, **__: Any) -> Any:
    """Places are picked; channels are not, or they have to stay."""
    labels, picks = context.labels(x), context.labels(index)
    dim %= labels.dim()
    if dim in varying(labels) or dim in varying(picks):
        return context.give_up(node, [x, index], f"{context.where(node)} picks channels by number")
    shape = context.shape(node)
    labels = labels.narrow(dim, 0, 1)
    if picks.dim() == labels.dim():
        rest = [d for d in range(len(shape)) if d != dim]
        if any(labels.shape[d] != shape[d] for d in rest):
            return context.give_up(node, [x, index])
        return context.join(node, [labels, compact(picks)])
    return labels.expand(shape)


@register_operator("index")
def _index(context: Context, node: Node, x: Any, indices: Sequence[Any]) -> Any:
    """Indexing by tensors is followed where it touches no channels."""
    labels = context.labels(x)
    picks = [context.labels(i) for i in indices if i is not None]
    indexed = [d for d, i in enumerate(indices) if i is not None]
    if isinstance(x, Param):  # a table of values per channel: all its rows keep the same ones
        rest = [d for d in varying(labels) if d not in indexed]
        if len(rest) != 1:
            return context.give_up(node, [x, indices])
        labels = context.settle(node, labels, rest[0])
    if set(indexed) & set(varying(labels)) or any(map(varying, picks)):
        return context.give_up(
            node, [x, indices], f"{context.where(node)} picks channels by number"
        )
    for d in indexed:
        labels = labels.narrow(d, 0, 1)
    zero = [None if i is None else torch.zeros_like(context.labels(i)) for i in indices]
    return restride(labels[tuple(slice(None) if i is None else i for i in zero)])
