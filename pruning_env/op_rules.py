"""One propagation rule per ATen operator: what an operator does to channel labels.

A rule receives label tensors (or `Param`s) where the operator receives activations (or parameters)
and returns label tensors of the operator's output shapes. Operators that only move data are run, as
they are, on the labels. An operator without a rule freezes whatever reaches it: unknown never means
wrong, it means less prunable. To add an operator, add one rule and one test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from pruning_env.label_context import Context, Param, fixed_like
from pruning_env.labels import compact, fixed, restride, spread, varying

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by name, without overload and in-place underscore."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def apply_rule(context: Context, node: Node, args: Any, kwargs: Any) -> Any:
    """The labels that `node` returns for the given arguments."""
    schema = getattr(node.target, "_schema", None)
    name = schema.name.partition("::")[2] if schema is not None else str(node.target)
    function = RULES.get(name) or RULES.get(name.rstrip("_"))
    if function is None:
        return context.give_up(node, [args, kwargs])
    try:
        return function(context, node, *args, **kwargs)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # An overload or argument the rule was not written for: the channels stay, nothing breaks.
        return context.give_up(
            node, [args, kwargs], f"the rule for {context.where(node)} failed: {error}"
        )


def _arguments(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound.update(zip((a.name for a in schema.arguments), args, strict=False))
    return bound | kwargs


# Layers with weights


@rule("conv1d", "conv2d", "conv3d")
def _conv(
    context: Context,
    node: Node,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    if not isinstance(weight, Param):
        return context.give_up(
            node, [x, bias], f"the weight of {context.where(node)} is computed in forward"
        )
    shape = context.shape(node)
    dim = len(shape) - len(weight.shape) + 1
    into, outputs = context.channels_of(node, x, dim), weight.shape[0]
    if groups == 1:
        context.own(node, weight, 1, into, "in")
        out, role = context.fresh(outputs), "out"
    elif weight.shape[1] == 1:  # depthwise: output o belongs to input o // multiplier
        out, role = into.repeat_interleave(outputs // groups), "channelwise"
    else:  # every group keeps the same channels, so that what is left still divides evenly
        per_group = into.view(groups, -1)
        context.merge(node, per_group[:1], per_group)
        context.own(node, weight, 1, per_group[0], "in")
        out, role = context.fresh(outputs // groups).repeat(groups), "out"
    context.own(node, weight, 0, out, role)
    context.own(node, bias, 0, out, role)
    context.multiply(weight, math.prod(shape) // outputs)
    return spread(out, shape, dim)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def _conv_transpose(
    context: Context,
    node: Node,
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    if not isinstance(weight, Param):
        return context.give_up(
            node, [x, bias], f"the weight of {context.where(node)} is computed in forward"
        )
    shape = context.shape(node)
    dim = len(shape) - len(weight.shape) + 1
    into = context.channels_of(node, x, dim)
    inputs, per_group = weight.shape[0], weight.shape[1]
    if groups == 1:
        context.own(node, weight, 0, into, "in")
        out = context.fresh(per_group)
        context.own(node, weight, 1, out, "out")
        context.own(node, bias, 0, out, "out")
    elif inputs == groups and per_group == 1:  # depthwise
        out = into
        context.own(node, weight, 0, out, "channelwise")
        context.own(node, bias, 0, out, "channelwise")
    else:
        # The weight keeps its groups in dim 0 one after another, and shares dim 1 between them.
        rows = into.view(groups, -1)
        context.merge(node, rows[:1], rows)
        context.own(node, weight, 0, into, "in")
        columns = context.fresh(per_group)
        context.own(node, weight, 1, columns, "out")
        out = columns.repeat(groups)
        context.own(node, bias, 0, out, "out")
    context.multiply(weight, math.prod(context.labels(x).shape) // inputs)
    return spread(out, shape, dim)


@rule("linear")
def _linear(context: Context, node: Node, x: Any, weight: Any, bias: Any = None) -> Tensor:
    if not isinstance(weight, Param):
        return context.give_up(
            node, [x, bias], f"the weight of {context.where(node)} is computed in forward"
        )
    shape = context.shape(node)
    context.own(node, weight, 1, context.channels_of(node, x, -1), "in")
    out = context.fresh(weight.shape[0])
    context.own(node, weight, 0, out, "out")
    context.own(node, bias, 0, out, "out")
    context.multiply(weight, math.prod(shape) // weight.shape[0])
    return spread(out, shape, -1)


@rule("matmul", "mm", "bmm")
def _matmul(context: Context, node: Node, a: Any, b: Any) -> Tensor:
    shape = context.shape(node)
    if isinstance(b, Param) and len(b.shape) == 2:  # a plain contraction with a weight
        context.own(node, b, 0, context.channels_of(node, a, -1), "in")
        out = context.fresh(b.shape[1])
        context.own(node, b, 1, out, "out")
        context.multiply(b, math.prod(shape) // b.shape[1])
        return spread(out, shape, -1)
    context.trace.constant_macs += math.prod(shape) * context.labels(a).shape[-1]
    return context.give_up(
        node, [a, b], f"multiplied with other activations by {context.where(node)}"
    )


@rule("scaled_dot_product_attention")
def _attention(
    context: Context, node: Node, query: Any, key: Any, value: Any, *rest: Any, **named: Any
) -> Any:
    q, k, v = (context.labels(t).shape for t in (query, key, value))
    context.trace.constant_macs += math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    reason = f"multiplied with other activations by {context.where(node)}"
    return context.give_up(node, [query, key, value, rest, named], reason)


@rule("einsum")
def _einsum(
    context: Context, node: Node, equation: str, tensors: Sequence[Any], *_: Any, **__: Any
) -> Any:
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes = {
        c: n
        for term, t in zip(terms, tensors, strict=False)
        for c, n in zip(term, t.shape, strict=False)
    }
    context.trace.constant_macs += math.prod(sizes.values())
    return context.give_up(
        node, tensors, f"multiplied with other activations by {context.where(node)}"
    )


@rule("batch_norm", "instance_norm")
def _batch_norm(
    context: Context, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *_: Any
) -> Tensor:
    channels = context.channels_of(node, x, 1)
    for tensor in (weight, bias, mean, var):
        context.own(node, tensor, 0, channels, "channelwise")
    return context.labels(x)


@rule("group_norm")
def _group_norm(
    context: Context, node: Node, x: Any, groups: int, weight: Any = None, bias: Any = None, *_: Any
) -> Tensor:
    channels = context.channels_of(node, x, 1)
    if groups < len(channels):
        rows = channels.view(groups, -1)
        context.merge(node, rows[:1], rows)
        if not _normalises(context, node, channels, nn.GroupNorm):
            return context.labels(x)
    for tensor in (weight, bias):
        context.own(node, tensor, 0, channels, "channelwise")
    return context.labels(x)


@rule("layer_norm")
def _layer_norm(
    context: Context,
    node: Node,
    x: Any,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    *_: Any,
) -> Tensor:
    labels = context.labels(x)
    crossed = [d for d in varying(labels) if d >= labels.dim() - len(shape)]
    if not crossed:
        return labels
    if len(shape) > 1:
        context.freeze(labels, f"{context.where(node)} normalises over several dimensions")
        return labels
    channels = context.channels_of(node, labels, -1)
    if _normalises(context, node, channels, nn.LayerNorm):
        for tensor in (weight, bias):
            context.own(node, tensor, 0, channels, "channelwise")
    return labels


def _normalises(context: Context, node: Node, channels: Tensor, kind: type[nn.Module]) -> bool:
    """Record statistics over removable channels; freezes them if no module of `kind` takes them."""
    path = context.module_of(node)
    if not isinstance(context.model.get_submodule(path), kind):
        context.freeze(channels, f"{context.where(node)} is called without an nn.{kind.__name__}")
        return False
    entry = node.all_input_nodes[0]
    while entry.op == "call_function" and context.module_of(entry) == path:
        entry = entry.all_input_nodes[0]  # a module may permute its input first
    dim = varying(context.labels(context.values[entry]))[0]
    _, known = context.trace.statistics.setdefault(path, (dim, channels))
    if known is not channels:
        context.merge(node, known, channels)
    return True


@rule("prelu", "_prelu_kernel")
def _prelu(context: Context, node: Node, x: Any, weight: Any) -> Tensor:
    labels = context.labels(x)
    if isinstance(weight, Param) and math.prod(weight.shape) > 1:
        context.own(node, weight, 0, context.channels_of(node, x, 1), "channelwise")
    return labels


# Element-wise operators


@rule(
    *"""
    relu relu6 hardtanh silu mish gelu elu celu selu leaky_relu rrelu hardswish hardsigmoid
    sigmoid log_sigmoid tanh softplus softsign tanhshrink hardshrink softshrink threshold
    exp expm1 log log1p log2 sqrt rsqrt square abs neg reciprocal sign floor ceil round erf
    sin cos clamp clamp_min clamp_max clip nan_to_num logical_not isnan bernoulli zeros_like
    ones_like full_like empty_like rand_like randn_like fill zero dropout feature_dropout
    alpha_dropout feature_alpha_dropout native_dropout contiguous clone alias detach to
    _to_copy type_as lift_fresh lift_fresh_copy float double half requires_grad
    """.split()
)
def _unary(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Tensor:
    return context.labels(x)


@rule(
    *"""
    add sub rsub mul div true_divide floor_divide remainder fmod pow maximum minimum fmax
    fmin eq ne lt le gt ge logical_and logical_or bitwise_and bitwise_or where masked_fill
    addcmul addcdiv lerp atan2 copy
    """.split()
)
def _meet(context: Context, node: Node, *args: Any, **kwargs: Any) -> Tensor:
    """Labels that meet are merged; what is spread over another tensor's channels has to stay."""
    shape = context.shape(node)
    tensors = [
        context.labels(a) for a in (*args, *kwargs.values()) if isinstance(a, (Tensor, Param))
    ]
    result: Tensor | None = None
    for labels in tensors:
        other = labels.expand(shape)
        if result is None:
            result, first = other, labels
            continue
        here, there = set(varying(result)), set(varying(other))
        if here == there:
            _merge_aligned(context, node, result, other)
        elif here - there and there - here:
            return context.give_up(
                node, [result, other], f"an outer product at {context.where(node)}"
            )
        else:
            rich, poor, poor_shape = (
                (result, other, labels) if here > there else (other, result, first)
            )
            result = rich
            lost = varying(rich)[0] - (len(shape) - poor_shape.dim())
            literal = lost >= 0 and poor_shape.shape[lost] > 1 and not compact(poor).any()
            if literal:  # a constant of the full width, written into the code
                context.freeze(rich, f"meets values that are not channels at {context.where(node)}")
            context.freeze(poor, f"is spread over channels by {context.where(node)}")
    assert result is not None
    return result


def _merge_aligned(context: Context, node: Node, a: Tensor, b: Tensor) -> None:
    """Merge two label tensors of one shape that vary along the same dimensions."""
    keep = varying(a)
    index = tuple(slice(None) if d in keep else 0 for d in range(a.dim()))
    context.merge(node, a[index], b[index])


@rule(
    *"""
    softmax _softmax log_softmax _log_softmax softmin cumsum cumprod sort topk
    """.split()
)
def _across(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    bound = _arguments(node, [x, *args], kwargs)
    labels, dim = context.labels(x), bound.get("dim", -1)
    if dim % max(labels.dim(), 1) in varying(labels) or context.shape(node) != tuple(labels.shape):
        return context.give_up(node, labels, f"channels compete in {context.where(node)}")
    value = node.meta["val"]
    return [labels] * len(value) if isinstance(value, (tuple, list)) else labels


@rule("glu")
def _glu(context: Context, node: Node, x: Any, dim: int = -1) -> Tensor:
    value, gate = context.labels(x).chunk(2, dim)
    _merge_aligned(context, node, value, gate)
    return value


# Operators over space


@rule(
    *"""
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d max_pool2d_with_indices lp_pool2d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_linear1d
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
    upsample_trilinear3d reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d grid_sampler grid_sampler_2d
    """.split()
)
def _spatial(context: Context, node: Node, x: Any, *args: Any, **_: Any) -> Any:
    labels, shape = context.labels(x), context.shape(node)
    for other in args:
        if isinstance(other, Tensor):  # a sampling grid
            context.freeze(other, f"steers {context.where(node)}")
    space = int(next((c for c in str(node.target) if c in "123"), "2"))
    if any(d >= labels.dim() - space for d in varying(labels)):
        return context.give_up(
            node, labels, f"channels are not where {context.where(node)} expects them"
        )
    for d in range(labels.dim() - space, labels.dim()):
        labels = labels.narrow(d, 0, 1)
    value = node.meta["val"]
    result = labels.expand(shape)
    return [result] * len(value) if isinstance(value, (tuple, list)) else result


@rule(
    *"""
    mean sum amax amin prod var std max min argmax argmin logsumexp any all norm
    linalg_vector_norm median var_mean std_mean count_nonzero
    """.split()
)
def _reduce(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], (Tensor, Param)):
        return _meet(context, node, x, *args, **kwargs)  # torch.max(a, b)
    bound = _arguments(node, [x, *args], kwargs)
    labels, dims = context.labels(x), bound.get("dim")
    dims = list(range(labels.dim())) if dims is None or dims == [] else dims
    dims = {d % max(labels.dim(), 1) for d in ([dims] if isinstance(dims, int) else dims)}
    if dims & set(varying(labels)):
        return context.give_up(node, labels, f"channels are reduced by {context.where(node)}")
    index = tuple(0 if d in dims else slice(None) for d in range(labels.dim()))
    keep = tuple(slice(0, 1) if d in dims else slice(None) for d in range(labels.dim()))
    result = labels[keep if bound.get("keepdim") else index]
    value = node.meta["val"]
    return [result] * len(value) if isinstance(value, (tuple, list)) else result


@rule("pad", "constant_pad_nd")
def _pad(
    context: Context, node: Node, x: Any, amounts: Sequence[int], *args: Any, **_: Any
) -> Tensor:
    labels, shape = context.labels(x), context.shape(node)
    dims = varying(labels)
    for i in range(len(amounts) // 2):
        dim, (low, high) = labels.dim() - 1 - i, amounts[2 * i : 2 * i + 2]
        if low == high == 0:
            continue
        if dim not in dims:
            size = list(labels.shape)
            size[dim] = shape[dim]
            labels = labels.narrow(dim, 0, 1).expand(size)
            continue
        channels = context.channels_of(node, labels, dim)
        constant = not args or args[0] in ("constant", None) or isinstance(args[0], (int, float))
        kept = channels[max(0, -low) : len(channels) - max(0, -high)]
        if len(kept) < len(channels) or not constant:
            context.freeze(channels, f"{context.where(node)} cuts or mirrors channels by number")
        before, after = context.fresh(max(0, low)), context.fresh(max(0, high))
        if not context.in_island(node):
            for new in (before, after):
                context.freeze(
                    new, f"{context.where(node)} adds a number of channels written in the code"
                )
        size = list(labels.shape)
        size[dim] = shape[dim]
        labels = spread(torch.cat([before, kept, after]), tuple(size), dim)
    return labels


@rule("pixel_shuffle")
def _pixel_shuffle(context: Context, node: Node, x: Any, factor: int) -> Tensor:
    columns = context.channels_of(node, x, -3).view(-1, factor * factor)
    context.merge(node, columns[:, :1], columns)
    return spread(columns[:, 0], context.shape(node), -3)


@rule("pixel_unshuffle")
def _pixel_unshuffle(context: Context, node: Node, x: Any, factor: int) -> Tensor:
    channels = context.channels_of(node, x, -3).repeat_interleave(factor * factor)
    return spread(channels, context.shape(node), -3)


@rule("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(context: Context, node: Node, x: Any, groups: int) -> Tensor:
    rows = context.channels_of(node, x, 1).view(groups, -1)
    if not context.in_island(node):
        context.merge(node, rows[:1], rows)
    return spread(rows.t().reshape(-1), context.shape(node), 1)


# Data movement: the operator itself runs on the labels


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
    dim = _arguments(node, [x, *args], kwargs).get("dim", 0) % labels.dim()
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
    bound = _arguments(node, [x, *args], kwargs)
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


# Tensors from nowhere


@rule(
    *"""
    zeros ones full empty arange linspace rand randn randint scalar_tensor eye new_zeros
    new_ones new_full new_empty sym_size _assert_tensor_metadata
    """.split()
)
def _constant(context: Context, node: Node, *_: Any, **__: Any) -> Any:
    value = node.meta.get("val")
    return fixed_like(value) if value is not None else fixed(())
