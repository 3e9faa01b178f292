"""Rules for element-wise operators and for tensors that come from nowhere."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.tracing.context import Context, Param, fixed_like
from pruning_env.tracing.labels import compact, fixed, varying
from pruning_env.tracing.rules.registry import arguments, rule


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
def meet(context: Context, node: Node, *args: Any, **kwargs: Any) -> Tensor:
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
    bound = arguments(node, [x, *args], kwargs)
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


@rule(
    *"""
    zeros ones full empty arange linspace rand randn randint scalar_tensor eye new_zeros
    new_ones new_full new_empty sym_size _assert_tensor_metadata
    """.split()
)
def _constant(context: Context, node: Node, *_: Any, **__: Any) -> Any:
    value = node.meta.get("val")
    return fixed_like(value) if value is not None else fixed(())
