"""Rules for products of activations, and for attention, which is made of two of them.

Heads, or the places in each head, are channels: which of the two a view that splits heads is read
as, and whether the code bears their removal (a scale that is computed from a shape does not), is
for a trial to judge.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import along, compact, fixed, spread, varying
from pruning_env.graph.tracing.rules.registry import operator_name, register_operator

_PRODUCTS = ("matmul", "bmm")


@register_operator("bmm", "dot")
def product(context: Context, node: Node, a: Any, b: Any, *_: Any, **__: Any) -> Tensor:
    """The labels of a matrix product of two activations."""
    if min(len(a.shape), len(b.shape)) < 2:
        context.trace.constant_macs += math.prod(context.shape(node)) * a.shape[-1]
        return context.give_up(
            node, [a, b], f"multiplied with other activations by {context.where(node)}"
        )
    shape = context.shape(node)
    return _multiplied(context, node, context.labels(a), context.labels(b), shape)


@register_operator("baddbmm")
def _baddbmm(context: Context, node: Node, x: Any, a: Any, b: Any, **_: Any) -> Tensor:
    return context.join(node, [product(context, node, a, b), context.labels(x)])


@register_operator("scaled_dot_product_attention")
def _attention(
    context: Context,
    node: Node,
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    q, k, v = map(context.labels, (query, key, value))
    shape = context.shape(node)
    if enable_gqa:
        context.trace.constant_macs += (
            math.prod(shape[:-1]) * k.shape[-2] * (q.shape[-1] + shape[-1])
        )
        return context.give_up(node, [q, k, v], f"heads are shared by {context.where(node)}")
    if scale is None and q.dim() - 1 in varying(q):
        reason = f"{context.where(node)} scales by the number of channels in a head"
        for labels in (q, k):
            context.misplace(node, labels, reason)
    between = (*shape[:-1], k.shape[-2])
    weights = _multiplied(context, node, q, k.transpose(-2, -1), between)
    if attn_mask is not None:
        weights = context.join(node, [weights, context.labels(attn_mask)], between)
    if len(between) - 1 in varying(weights):
        context.misplace(node, weights, f"channels compete in {context.where(node)}")
        weights = fixed(between)
    return _multiplied(context, node, weights, v, shape)


def _multiplied(
    context: Context, node: Node, left: Tensor, right: Tensor, shape: tuple[int, ...]
) -> Tensor:
    """`(..., i, k)` times `(..., k, j)`: channels may lie along one dimension of each.

    Where they are summed, those of both sides live and die together, and are silenced; where they
    are not, they pass.
    """
    macs = math.prod(shape) * left.shape[-1]
    dims = len(shape)
    summed, row, column = dims - 1, dims - 2, dims
    # Dimensions of the product as (..., i, k, j).
    ways = []
    for labels, last in ((left, (row, summed)), (right, (summed, column))):
        places = [*range(dims - labels.dim(), dims - 2), *last]
        ways.append([places[d] for d in varying(labels)])
        if not ways[-1] and compact(labels).any():
            context.freeze(labels, f"a single channel meets others at {context.where(node)}")
    lines = [[along(labels, d) for d in varying(labels)][:1] for labels in (left, right)]
    reason = f"multiplied with other activations by {context.where(node)}"

    def give_up() -> Tensor:
        context.trace.constant_macs += macs
        for labels in (left, right):
            context.misplace(node, labels, reason)
        return fixed(shape)

    if max(map(len, ways)) > 1:
        return give_up()
    held = context.crossed.get(node.args[1]) if len(node.args) > 1 else None
    if held is not None and ways[0] == [summed]:
        # The sum over what an earlier product made two dimensions of channels with.
        context.merge(node, lines[0][0], held)
        context.silence(lines[0][0])
        both = [lines[0][0], *lines[1]]
        context.trace.products.append((tuple(both), macs // math.prod(map(len, both))))
        return spread(lines[1][0], shape, dims - 1)
    if ways == [[summed], [summed]]:
        context.merge(node, lines[0][0], lines[1][0])
        context.silence(lines[0][0])
        context.trace.products.append(((lines[0][0],), macs // len(lines[0][0])))
        return fixed(shape)
    if [summed] in ways or held is not None:
        return give_up()
    if ways == [[row], [column]]:
        if not all(_sums_rows(user, node) for user in node.users):
            return give_up()
        context.crossed[node] = lines[0][0]
        both = [lines[0][0], lines[1][0]]
        context.trace.products.append((tuple(both), macs // math.prod(map(len, both))))
        return spread(lines[1][0], shape, dims - 1)
    if ways[0] and ways[1]:
        if ways[0] != ways[1]:
            return give_up()
        context.merge(node, lines[0][0], lines[1][0])
    elif not ways[0] and not ways[1]:
        context.trace.constant_macs += macs
        return fixed(shape)
    own = 0 if ways[0] else 1
    (place,), line = ways[own], lines[own][0]
    other = (left, right)[1 - own]
    if place < row and not ways[1 - own]:
        at = place - (dims - other.dim())
        if at >= 0 and other.shape[at] > 1:
            return give_up()
    context.trace.products.append(((line,), macs // len(line)))
    return spread(line, shape, dims - 1 if place == column else place)


def _sums_rows(user: Node, node: Node) -> bool:
    """Whether `user` is a product that sums over the rows of the matrix `node`."""
    return operator_name(user) in _PRODUCTS and user.args[1] is node and user.args[0] is not node
