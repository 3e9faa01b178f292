"""Rules for operators with weights: convolutions, products, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import along, compact, fixed, spread, varying
from pruning_env.graph.tracing.rules.attention import product
from pruning_env.graph.tracing.rules.registry import register_operator
from pruning_env.graph.tracing.rules.sideways import sideways
from pruning_env.graph.tracing.trace import Param
from pruning_env.graph.tracing.weights import Weight


@register_operator("conv1d", "conv2d", "conv3d")
def convolution(
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
    """The channels that a convolution makes; grouped ones keep the same in every group."""
    if not isinstance(weight, (Param, Weight)):
        return _times_computed(context, node, context.shape(node), x, weight, bias)
    shape, dim = _geometry(context, node, weight, stride)
    if (passed := sideways(context, node, x, weight, stride, padding, dilation)) is not None:
        return passed
    into, outputs = context.channels_of(node, x, dim), weight.shape[0]
    if groups == 1:
        context.own(node, weight, 1, into, "in")
        out, role = context.fresh(outputs), "out"
    elif weight.shape[1] == 1:  # depthwise: output o belongs to input o // multiplier
        _number_groups(context, node, into)
        out, role = into.repeat_interleave(outputs // groups), "channelwise"
    else:  # every group keeps the same channels, so that what is left still divides evenly
        per_group = into.view(groups, -1)
        context.merge(node, per_group[:1], per_group)
        context.own(node, weight, 1, per_group[0], "in")
        out, role = context.fresh(outputs // groups).repeat(groups), "out"
    context.own(node, weight, 0, out, role)
    context.own(node, bias, 0, out, role)
    _watch(context, node, weight, into, out)
    context.multiply(weight, math.prod(shape) // outputs)
    return spread(out, shape, dim)


@register_operator("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
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
    if not isinstance(weight, (Param, Weight)):
        return _times_computed(context, node, x.shape, x, weight, bias)
    shape, dim = _geometry(context, node, weight, stride)
    into = context.channels_of(node, x, dim)
    inputs, per_group = weight.shape[0], weight.shape[1]
    if groups == 1:
        context.own(node, weight, 0, into, "in")
        out = context.fresh(per_group)
        context.own(node, weight, 1, out, "out")
        context.own(node, bias, 0, out, "out")
    elif inputs == groups:  # depthwise: input i makes outputs i * multiplier and on
        _number_groups(context, node, into)
        out = into.repeat_interleave(per_group)
        context.own(node, weight, 0, into, "channelwise")
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
    _watch(context, node, weight, into, out)
    context.multiply(weight, math.prod(context.labels(x).shape) // inputs)
    return spread(out, shape, dim)


def _watch(context: Context, node: Node, weight: Param | Weight, into: Tensor, out: Tensor) -> None:
    """A weight that is computed from what is kept: its layer has to run on that alone."""
    if isinstance(weight, Weight):
        depends = any(bool(labels.any()) for labels in weight.mixed)
        consumed = not weight.keeps_zeros and not torch.equal(torch.unique(into), torch.unique(out))
        if depends or consumed:
            reason = f"the weight of {context.where(node)} is computed in forward"
            context.take_statistics(node, into, reason, made=out)


def _times_computed(
    context: Context, node: Node, rows: Sequence[int], x: Any, weight: Any, bias: Any
) -> Tensor:
    """A layer whose weight cannot be followed, so that no channel changes what it costs.

    `rows` is the shape of what has a number per row of the weight: outputs or, transposed, inputs.
    """
    context.trace.constant_macs += math.prod(rows) * math.prod(weight.shape[1:])
    return _computed(context, node, x, weight, bias)


def _computed(context: Context, node: Node, *values: Any) -> Tensor:
    return context.give_up(
        node, values, f"the weight of {context.where(node)} is computed in forward"
    )


def _geometry(
    context: Context, node: Node, weight: Param | Weight, stride: Any
) -> tuple[tuple[int, ...], int]:
    """Shape and channel dimension of a convolution's result; puts its geometry on record."""
    shape = context.shape(node)
    dim = len(shape) - len(weight.shape) + 1
    if dim == 0:  # a single image without a batch dimension
        context.trace.batch = 1
    steps = stride if isinstance(stride, (list, tuple)) else [stride]
    for name in weight.sources if isinstance(weight, Weight) else [weight.name]:
        context.trace.geometry.setdefault(name, (max(weight.shape[2:]), max(steps)))
    return shape, dim


def _number_groups(context: Context, node: Node, labels: Tensor) -> None:
    """Outside of a module that can be told, the number of groups may be written in the code."""
    module = context.model.get_submodule(context.calls.module_of(node))
    if not isinstance(module, nn.modules.conv._ConvNd):
        context.number(node, labels, [labels])


@register_operator("linear", "inner")
def _linear(context: Context, node: Node, x: Any, weight: Any, bias: Any = None) -> Any:
    if isinstance(weight, (Param, Weight)) and len(weight.shape) == 2:
        return _contract(context, node, x, -1, weight, 1, bias)
    return _times_computed(context, node, context.shape(node), x, weight, bias)


def _contract(
    context: Context,
    node: Node,
    x: Any,
    dim: int,
    weight: Param | Weight,
    row: int,
    bias: Any = None,
) -> Tensor:
    """`x`, along `dim`, times a matrix, along its dimension `row`."""
    shape, labels = context.shape(node), context.labels(x)
    rows = math.prod(shape) // weight.shape[1 - row]
    out = context.fresh(weight.shape[1 - row])
    context.own(node, weight, 1 - row, out, "out")
    if bias is not None:
        context.own(node, bias, len(bias.shape) - 1, out, "out")
    if len(varying(labels)) == 1 and dim % labels.dim() not in varying(labels):
        context.freeze(out, f"{context.where(node)} mixes places, not channels")
        mixed = labels.narrow(dim, 0, 1).expand(shape)
        return _product_of(context, mixed, rows * math.prod(weight.shape))
    context.multiply(weight, rows)
    into = context.channels_of(node, x, dim)
    context.own(node, weight, row, into, "in")
    _watch(context, node, weight, into, out)
    return spread(out, shape, dim)


@register_operator("matmul", "mm", "mv")
def _matmul(context: Context, node: Node, a: Any, b: Any) -> Any:
    if isinstance(b, Param) and len(b.shape) == 2:  # a plain contraction with a weight
        return _contract(context, node, a, -1, b, 0)
    if isinstance(a, Param) and len(a.shape) == 2 and len(b.shape) > 1:
        return _contract(context, node, b, -2, a, 1)
    return product(context, node, a, b)


@register_operator("tensordot")
def _tensordot(
    context: Context, node: Node, a: Any, b: Any, dims: Sequence[int], rows: Sequence[int], *_: Any
) -> Any:
    """Activations times a matrix, along any dimension of theirs; what is made of it comes last."""
    if len(dims) > 1 or not isinstance(b, Param) or len(b.shape) != 2:
        return context.give_up(node, [a, b], f"contracted by {context.where(node)}")
    return _contract(context, node, context.labels(a).movedim(dims[0], -1), -1, b, rows[0] % 2)


@register_operator("addmm")
def _addmm(context: Context, node: Node, bias: Any, a: Any, b: Any, **_: Any) -> Any:
    if isinstance(b, Param):
        return context.join(node, [_contract(context, node, a, -1, b, 0), context.labels(bias)])
    return context.join(node, [product(context, node, a, b), context.labels(bias)])


def _passes(x: Tensor, other: Tensor) -> bool:
    """Whether channels of `x` can pass a product with `other`, which has none."""
    return not compact(other).any() and len(varying(x)) == 1


def _product_of(context: Context, labels: Tensor, macs: int) -> Tensor:
    channels = along(labels, varying(labels)[0])
    context.trace.products.append(((channels,), macs // len(channels)))
    return labels


@register_operator("einsum")
def _einsum(
    context: Context, node: Node, equation: str, tensors: Sequence[Any], *_: Any, **__: Any
) -> Any:
    inputs, _arrow, result = equation.replace(" ", "").partition("->")
    letters = inputs.split(",")
    plain = result and "." not in equation and all(len(set(t)) == len(t) for t in letters)
    sizes = {
        c: n
        for term, t in zip(letters, tensors, strict=False)
        for c, n in zip(term, t.shape, strict=False)
    }
    if plain and len(tensors) == 2:
        for x, other, at, held in (
            (*tensors, *letters),
            (*reversed(tensors), *reversed(letters)),
        ):
            wide = [at[d] for d in varying(context.labels(x))] if not isinstance(x, Param) else []
            if isinstance(other, Param) and len(wide) == 1:
                return _weighted(context, node, x, other, (at, held, result), wide[0], sizes)
            unmet = len(wide) == 1 and wide[0] in result and wide[0] not in held
            if unmet and isinstance(other, Tensor) and _passes(x, other):
                channels = along(x, at.index(wide[0]))
                passed = spread(channels, context.shape(node), result.index(wide[0]))
                return _product_of(context, passed, math.prod(sizes.values()))
    context.trace.constant_macs += math.prod(sizes.values())
    return context.give_up(
        node, tensors, f"multiplied with other activations by {context.where(node)}"
    )


def _weighted(
    context: Context,
    node: Node,
    x: Any,
    weight: Param,
    letters: tuple[str, str, str],
    channel: str,
    sizes: dict[str, int],
) -> Any:
    """An einsum of a weight and activations: letters of `x`, of `weight`, and of the result."""
    at, held, result = letters
    shape = context.shape(node)
    channels = context.channels_of(node, x, at.index(channel))
    if any(c in at and c not in result for c in held):  # otherwise it is a mere product
        rows = math.prod(sizes.values()) // math.prod(weight.shape)
        if channel in held:
            context.multiply(weight, rows)
        else:
            rows = math.prod(sizes.values()) // len(channels)
            context.trace.products.append(((channels,), rows))
    if channel in held:
        role = "channelwise" if channel in result else "in"
        context.own(node, weight, held.index(channel), channels, role)
    elif channel not in result:
        return context.give_up(node, [x, weight], f"channels are summed by {context.where(node)}")
    made = [c for c in held if c not in at]
    new = {c: context.fresh(sizes[c]) for c in made}
    for c in made:
        context.own(node, weight, held.index(c), new[c], "out")
        if channel in result or len(made) > 1 or c not in result:
            context.freeze(new[c], f"a second channel dimension at {context.where(node)}")
    if channel in result:
        return spread(channels, shape, result.index(channel))
    if len(made) == 1:
        return spread(new[made[0]], shape, result.index(made[0]))
    return fixed(shape)


@register_operator("batch_norm", "instance_norm")
def _batch_norm(
    context: Context, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *_: Any
) -> Tensor:
    channels = context.channels_of(node, x, 1)
    for tensor in (weight, bias, mean, var):
        context.own(node, tensor, 0, channels, "channelwise")
    if weight is None and mean is None:
        _hold_width(context, node, channels)
    return context.labels(x)


@register_operator("group_norm")
def _group_norm(
    context: Context, node: Node, x: Any, groups: int, weight: Any = None, bias: Any = None, *_: Any
) -> Tensor:
    channels = context.channels_of(node, x, 1)
    if groups < len(channels):
        rows = channels.view(groups, -1)
        context.merge(node, rows[:1], rows)
        context.take_statistics(node, channels, f"channels are mixed by {context.where(node)}")
    else:
        _hold_width(context, node, channels)
    for tensor in (weight, bias):
        context.own(node, tensor, 0, channels, "channelwise")
    return context.labels(x)


def _hold_width(context: Context, node: Node, channels: Tensor) -> None:
    """A norm of each channel by itself: only its module has to be told their number."""
    module = context.model.get_submodule(context.calls.module_of(node))
    if isinstance(module, (nn.GroupNorm, nn.modules.batchnorm._NormBase)):
        context.take_statistics(node, channels[:0], "")
    else:
        context.number(node, channels, [channels])


@register_operator("layer_norm", "rms_norm")
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
    dims = [d for d in varying(labels) if d >= labels.dim() - len(shape)]
    if not dims:
        return labels
    channels = context.channels_of(node, labels, dims[0])
    module = context.model.get_submodule(context.calls.module_of(node))
    if not hasattr(module, "normalized_shape"):
        context.number(node, channels, [channels])
    if len(shape) > 1 and weight is None:
        context.freeze(channels, f"{context.where(node)} normalises over several dimensions")
    context.take_statistics(node, channels, f"channels are mixed by {context.where(node)}")
    for tensor in (weight, bias):
        if isinstance(tensor, (Param, Tensor)):  # rms_norm has a number here
            context.own(node, tensor, dims[0] - labels.dim(), channels, "channelwise")
    return labels


@register_operator("embedding")
def _embedding(context: Context, node: Node, weight: Any, indices: Any, *_: Any) -> Any:
    if not isinstance(weight, Param):
        return _computed(context, node, weight, indices)
    out = context.fresh(weight.shape[1])
    context.own(node, weight, 1, out, "out")
    context.freeze(context.labels(indices), f"picks rows by number in {context.where(node)}")
    return spread(out, context.shape(node), -1)


@register_operator("prelu", "_prelu_kernel")
def _prelu(context: Context, node: Node, x: Any, weight: Any) -> Tensor:
    labels = context.labels(x)
    if isinstance(weight, Param) and math.prod(weight.shape) > 1:
        context.own(node, weight, 0, context.channels_of(node, x, 1), "channelwise")
    return labels
