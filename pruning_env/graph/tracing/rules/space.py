"""Rules for operators over space or over one dimension: pooling, resizing, reductions, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context, fixed_like
from pruning_env.graph.tracing.labels import along, fixed, spread, varying
from pruning_env.graph.tracing.rules.elementwise import meet
from pruning_env.graph.tracing.rules.registry import arguments, operator_name, register_operator
from pruning_env.graph.tracing.trace import Param


@register_operator(
    *"""
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d max_pool2d_with_indices upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact2d upsample_linear1d
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_bicubic2d _upsample_bicubic2d_aa
    upsample_trilinear3d reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d grid_sampler grid_sampler_2d
    grid_sampler_3d max_pool1d_with_indices max_pool3d_with_indices max_unpool2d max_unpool3d
    """.split()
)
def _spatial(context: Context, node: Node, x: Any, *args: Any, **_: Any) -> Any:
    labels, shape = context.labels(x), context.shape(node)
    for other in args:
        if isinstance(other, Tensor):  # a sampling grid, or the places of a max-unpooling
            if other.shape == labels.shape:
                labels = context.join(node, [labels, other], tuple(labels.shape))
            else:
                context.freeze(other, f"steers {context.where(node)}")
    digits = [int(c) for c in str(node.target).partition(".")[2] if c in "123"]
    space = digits[0] if digits else labels.dim() - 2
    rest = [d for d in varying(labels) if d < labels.dim() - space]
    if len(rest) < len(varying(labels)):
        if not isinstance(x, Param) or len(rest) != 1:
            context.misplace(node, labels)
            return fixed_like(node.meta["val"])
        labels = context.settle(node, labels, rest[0])  # a parameter with a value per place
    for d in range(labels.dim() - space, labels.dim()):
        labels = labels.narrow(d, 0, 1)
    value = node.meta["val"]
    result = labels.expand(shape)
    return [result] * len(value) if isinstance(value, (tuple, list)) else result


# Reductions whose result over any subset of channels is the same statistic of that subset.
STATISTICS = {"mean", "sum", "amax", "amin", "max", "min", "logsumexp", "norm"}
VARIANCES = {"std", "var", "var_mean", "std_mean"}
STATISTICS |= {"linalg_vector_norm", "median"} | VARIANCES


@register_operator(
    *STATISTICS, "prod", "argmax", "argmin", "any", "all", "count_nonzero", "nansum", "nanmean"
)
def _reduce(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], (Tensor, Param)):
        return meet(context, node, x, *args, **kwargs)  # torch.max(a, b)
    if not node.users:  # as the mean over heads that nn.MultiheadAttention offers
        return fixed_like(node.meta["val"])
    bound = arguments(node, [x, *args], kwargs)
    labels, dims = context.labels(x), bound.get("dim")
    dims = list(range(labels.dim())) if dims is None or dims == [] else dims
    dims = {d % max(labels.dim(), 1) for d in ([dims] if isinstance(dims, int) else dims)}
    for d in dims & set(varying(labels)):
        reason = f"channels are reduced by {context.where(node)}"
        if len(varying(labels)) > 1 or operator_name(node) not in STATISTICS:
            context.misplace(node, labels, reason)
            return fixed_like(node.meta["val"])
        context.take_statistics(node, along(labels, d), reason)
        if dims == {d} and operator_name(node) in VARIANCES:
            context.hold_two(node, along(labels, d))
        labels = fixed(tuple(labels.shape))
    index = tuple(0 if d in dims else slice(None) for d in range(labels.dim()))
    keep = tuple(slice(0, 1) if d in dims else slice(None) for d in range(labels.dim()))
    result = labels[keep if bound.get("keepdim") else index]
    value = node.meta["val"]
    return [result] * len(value) if isinstance(value, (tuple, list)) else result


@register_operator("affine_grid_generator")
def _steer(context: Context, node: Node, theta: Any, *_: Any) -> Any:
    return context.give_up(node, theta, f"steers {context.where(node)}")


@register_operator("pad", "constant_pad_nd")
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


@register_operator("pixel_shuffle")
def _pixel_shuffle(context: Context, node: Node, x: Any, factor: int) -> Tensor:
    columns = context.channels_of(node, x, -3).view(-1, factor * factor)
    context.merge(node, columns[:, :1], columns)
    return spread(columns[:, 0], context.shape(node), -3)


@register_operator("pixel_unshuffle")
def _pixel_unshuffle(context: Context, node: Node, x: Any, factor: int) -> Tensor:
    channels = context.channels_of(node, x, -3).repeat_interleave(factor * factor)
    return spread(channels, context.shape(node), -3)


@register_operator("channel_shuffle", "native_channel_shuffle")
def _channel_shuffle(context: Context, node: Node, x: Any, groups: int) -> Tensor:
    rows = context.channels_of(node, x, 1).view(groups, -1)
    if not context.in_island(node):
        context.merge(node, rows[:1], rows)
    return spread(rows.t().reshape(-1), context.shape(node), 1)


@register_operator("im2col")
def _im2col(context: Context, node: Node, x: Any, kernel: Sequence[int], *_: Any) -> Tensor:
    area = math.prod(kernel)
    channels = context.channels_of(node, x, -3).repeat_interleave(area)
    return spread(channels, context.shape(node), -2)


@register_operator("col2im")
def _col2im(
    context: Context, node: Node, x: Any, size: Any, kernel: Sequence[int], *_: Any
) -> Tensor:
    columns = context.channels_of(node, x, -2).view(-1, math.prod(kernel))
    context.merge(node, columns[:, :1], columns)
    return spread(columns[:, 0], context.shape(node), -3)
