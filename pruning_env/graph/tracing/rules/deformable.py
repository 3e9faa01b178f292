"""A rule for torchvision's deformable convolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.rules.layers import convolution
from pruning_env.graph.tracing.rules.registry import register_operator


@register_operator("deform_conv2d")
def _deformable(
    context: Context,
    node: Node,
    x: Any,
    weight: Any,
    offset: Any,
    mask: Any,
    bias: Any,
    stride_height: int,
    stride_width: int,
    pad_height: int,
    pad_width: int,
    dilation_height: int,
    dilation_width: int,
    groups: int,
    offset_groups: int,
    masked: bool,
) -> Tensor:
    """A convolution whose places others say: a set for each of several groups, all of one size."""
    for steering in (offset, mask) if masked else (offset,):
        context.freeze(context.labels(steering), f"steers {context.where(node)}")
    if offset_groups > 1:
        rows = context.channels_of(node, x, 1).view(offset_groups, -1)
        context.merge(node, rows[:1], rows)
    stride = (stride_height, stride_width)
    return convolution(context, node, x, weight, bias, stride, groups=groups)
