"""Rules for operators with weights: convolutions, products, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from pruning_env.tracing.context import Context, Param
from pruning_env.tracing.labels import spread, varying
from pruning_env.tracing.rules.registry import rule


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
