"""Rules for weights that `forward` computes from parameters.

They are asked first for the operators between parameters and the weight of a layer, and know no
activations. What they do not know is frozen, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from pruning_env.graph.tracing.calls import CONSTANT
from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.rules.movement import rearranged
from pruning_env.graph.tracing.rules.registry import WEIGHT_RULES, Rule, arguments, operator_name
from pruning_env.graph.tracing.rules.space import STATISTICS, VARIANCES
from pruning_env.graph.tracing.trace import Owned, Param
from pruning_env.graph.tracing.weights import Axis, Factor, Weight, plain

_LAYERS = frozenset(f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3))
_LAYERS |= {"linear"}


def computed_weights(graph: Graph) -> list[Node]:
    """The operators whose results, computed from parameters, are the weights of layers only."""
    constant: dict[Node, bool] = {}
    for node in graph.nodes:
        known = node.op == "get_attr" or bool(node.meta.get(CONSTANT))
        computed = node.op == "call_function" and all(constant[n] for n in node.all_input_nodes)
        constant[node] = known or computed
    found: dict[Node, None] = {}
    open_nodes = [
        weight
        for node in graph.nodes
        if node.op == "call_function" and operator_name(node) in _LAYERS
        for weight in (node.args[1],)
        if isinstance(weight, Node) and constant[weight]
    ]
    while open_nodes:
        node = open_nodes.pop()
        if node.op == "call_function" and node not in found:
            found[node] = None
            open_nodes += node.all_input_nodes
    return list(found)


def weight_rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators on computed weights, by name."""

    def register(function: Rule) -> Rule:
        WEIGHT_RULES.update(dict.fromkeys(names, function))
        return function

    return register


def as_weight(context: Context, value: Any) -> Weight:
    """A parameter, buffer, number or label tensor as a weight."""
    if isinstance(value, Weight):
        return value
    if isinstance(value, Tensor):
        return plain(value)
    axes: list[Axis] = []
    large = sum(n > 1 for n in value.stored) > 1
    for size, dim in zip(value.shape, value.dims, strict=True):
        if size == 1:
            axes.append(())
        elif dim > 1:  # places of a kernel
            axes.append((Factor(torch.zeros(size, dtype=torch.int64)),))
        else:
            key = value.name, dim
            if key not in context.trace.owned:
                role = "in" if large else "channelwise"
                context.trace.owned[key] = Owned(role, context.fresh(size), False)
            axes.append((Factor(context.trace.owned[key].labels, frozenset({key})),))
    return Weight(tuple(axes), sources=frozenset({value.name} if large else ()))


def _operands(context: Context, values: Iterable[Any]) -> Iterator[Weight]:
    for value in values:
        if isinstance(value, (Weight, Param, Tensor)):
            yield as_weight(context, value)


def _meet(context: Context, node: Node, operands: Sequence[Weight], *, zeros: bool) -> Weight:
    """An element-wise combination: what meets lives and dies together."""
    dims = max(w.dim() for w in operands)
    axes: list[Axis] = []
    for d in range(dims):
        met = [w.axes[d - dims + w.dim()] for w in operands if d - dims + w.dim() >= 0]
        met = [axis for axis in met if axis]
        axes.append(_tied(context, node, met) if met else ())
    return Weight(
        tuple(axes),
        keeps_zeros=zeros and all(w.keeps_zeros for w in operands),
        sources=frozenset().union(*(w.sources for w in operands)),
        mixed=tuple(labels for w in operands for labels in w.mixed),
    )


def _tied(context: Context, node: Node, axes: list[Axis]) -> Axis:
    """Dimensions that lie on each other, as one."""
    axes.sort(key=len, reverse=True)
    first = axes[0]
    for other in axes[1:]:
        if [len(f.labels) for f in other] != [len(f.labels) for f in first]:
            one, two = (Weight((axis,)).merged(0) for axis in (first, other))
            if one is None or two is None:
                raise ValueError("channels of a computed weight meet several others")
            context.merge(node, one.labels, two.labels)
            continue
        for mine, theirs in zip(first, other, strict=True):
            context.merge(node, mine.labels, theirs.labels)
        first = tuple(
            Factor(mine.labels, mine.keys | theirs.keys)
            for mine, theirs in zip(first, other, strict=True)
        )
    return first


@weight_rule(
    *"""
    abs neg sign sgn round floor ceil trunc square sqrt tanh sin relu hardtanh erf expm1 dropout
    """.split()
)
def _keeping_zeros(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Weight:
    return as_weight(context, x)


@weight_rule(
    *"""
    clone contiguous detach alias to _to_copy type_as float double half bfloat16 lift_fresh
    lift_fresh_copy positive
    """.split()
)
def _same(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    return x  # a parameter stays one


@weight_rule(
    *"""
    exp exp2 log log1p log2 rsqrt reciprocal sigmoid softplus cos clamp clamp_min clamp_max clip
    """.split()
)
def _moving_zeros(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Weight:
    return replace(as_weight(context, x), keeps_zeros=False)


@weight_rule("add", "sub", "rsub")
def _sum(context: Context, node: Node, *values: Any, **_: Any) -> Weight:
    zeros = all(isinstance(v, (Weight, Param)) for v in values[:2])
    operands = list(_operands(context, values))
    # A sum of what is spread over channels with what is not is not zero where the latter is not.
    zeros = zeros and len({w.shape for w in operands}) == 1
    return _meet(context, node, operands, zeros=zeros)


@weight_rule(
    "mul", "multiply", "minimum", "maximum", "where", "pow", "div", "divide", "true_divide"
)
def _product(context: Context, node: Node, *values: Any, **_: Any) -> Weight:
    name, operands = operator_name(node), list(_operands(context, values))
    scaled = len(operands) == 1 and not isinstance(values[0], (int, float)) and "div" in name
    return _meet(context, node, operands, zeros=scaled or name in ("mul", "multiply"))


@weight_rule("fake_quantize_per_tensor_affine", "fake_quantize_per_channel_affine")
def _fake_quantize(
    context: Context, node: Node, x: Any, scale: Any, zero_point: Any, axis: Any = None, *_: Any
) -> Weight:
    """Zero is a value that every quantiser has."""
    weight = as_weight(context, x)
    per_channel = operator_name(node).startswith("fake_quantize_per_channel")
    for value in _operands(context, [scale, zero_point]):
        if per_channel:
            lines: list[Axis] = [()] * weight.dim()
            lines[axis] = value.axes[0] if value.axes else ()
            value = replace(value, axes=tuple(lines))
        _meet(context, node, [weight, value], zeros=True)
    return weight


@weight_rule(*STATISTICS)
def _reduce(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    if args and isinstance(args[0], (Weight, Param, Tensor)):
        return _product(context, node, x, *args)
    weight, bound = as_weight(context, x), arguments(node, [x, *args], kwargs)
    dims = bound.get("dim")
    dims = range(weight.dim()) if dims is None or dims == [] else dims
    dims = [dims] if isinstance(dims, int) else dims
    if operator_name(node) in VARIANCES:
        _hold_two(context, node, [weight.axes[d] for d in dims])
    result = weight.without(dims, keepdim=bool(bound.get("keepdim")))
    value = node.meta["val"]
    return [result] * len(value) if isinstance(value, (tuple, list)) else result


def _hold_two(context: Context, node: Node, axes: Sequence[Axis]) -> None:
    """Of the channels that a variance runs over, if these are all that it runs over, two stay."""
    factors = [factor for axis in axes for factor in axis]
    wide = [factor.labels for factor in factors if factor.labels.any()]
    if wide and len(wide) == len(factors):
        context.hold_two(node, wide[0])


@weight_rule("mv", "dot", "vdot", "matmul", "mm")
def _contract(context: Context, node: Node, a: Any, b: Any) -> Weight:
    left, right = as_weight(context, a), as_weight(context, b)
    if right.dim() != 1:
        raise ValueError("a product of two computed matrices")
    return _meet(context, node, [left, right], zeros=False).without([-1], keepdim=False)


@weight_rule("_weight_norm", "_weight_norm_interface")
def _weight_norm(context: Context, node: Node, v: Any, g: Any, dim: int = 0) -> Any:
    weight = as_weight(context, v)
    norms = weight.without([d for d in range(weight.dim()) if d != dim], keepdim=True)
    result = _meet(context, node, [weight, norms, as_weight(context, g)], zeros=False)
    value = node.meta["val"]
    return [result, norms] if isinstance(value, (tuple, list)) else result


@weight_rule("batch_norm")
def _standardise(
    context: Context, node: Node, x: Any, weight: Any, bias: Any, mean: Any, var: Any, *_: Any
) -> Weight:
    """A standardisation of rows, along dimension 1."""
    rows = as_weight(context, x)
    if mean is not None or var is not None:
        raise ValueError("a computed weight with running statistics")
    others = [d for d in range(rows.dim()) if d != 1]
    _hold_two(context, node, [rows.axes[d] for d in others])
    statistics = rows.without(others, keepdim=True)
    lines = [replace(w, axes=((), *w.axes, ())) for w in _operands(context, [weight, bias])]
    return _meet(context, node, [rows, statistics, *lines], zeros=False)


@weight_rule(*"transpose permute t numpy_T swapaxes swapdims movedim moveaxis mT".split())
def _permute(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Param | Weight:
    if isinstance(x, Param) and (moved := rearranged(node, x, args, kwargs)) is not None:
        return moved
    weight = as_weight(context, x)
    order = torch.empty([2 + d for d in range(weight.dim())], device="meta")
    moved = node.target(order, *args, **kwargs)  # type: ignore[operator]
    return replace(weight, axes=tuple(weight.axes[size - 2] for size in moved.shape))


@weight_rule(
    *"""
    view _unsafe_view reshape flatten unflatten unsqueeze squeeze view_as reshape_as
    """.split()
)
def _view(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Param | Weight:
    if isinstance(x, Param) and not operator_name(node).endswith("_as"):
        moved = rearranged(node, x, args, kwargs)
        if moved is not None:
            return moved
    return as_weight(context, x).reshaped(context.shape(node))


@weight_rule("expand", "expand_as", "broadcast_to", "repeat")
def _expand(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Weight:
    """What is the same along a dimension takes any length there; the trial sees the right one."""
    weight, shape = as_weight(context, x), context.shape(node)
    axes = ((),) * (len(shape) - weight.dim()) + weight.axes
    wide: list[Axis] = []
    for axis, size in zip(axes, shape, strict=True):
        if math.prod(len(f.labels) for f in axis) == size:
            wide.append(axis)
        elif axis:
            raise ValueError("copies of the channels of a computed weight")
        else:
            wide.append((Factor(context.fresh(size)),))
            context.number(node, wide[-1][0].labels)
    return replace(weight, axes=tuple(wide), keeps_zeros=weight.shape == shape)


@weight_rule("slice", "narrow")
def _slice(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    if tuple(x.shape) != context.shape(node):
        raise ValueError("a part of a computed weight")
    return x
