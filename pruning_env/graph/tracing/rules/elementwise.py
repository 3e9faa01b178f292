"""Rules for element-wise operators and for tensors that come from nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context, fixed_like
from pruning_env.graph.tracing.labels import fixed, varying
from pruning_env.graph.tracing.rules.registry import arguments, register_operator
from pruning_env.graph.tracing.trace import Param


@register_operator(
    *"""
    relu relu6 hardtanh silu mish gelu elu celu selu leaky_relu rrelu hardswish hardsigmoid
    sigmoid log_sigmoid tanh softplus softsign tanhshrink hardshrink softshrink threshold
    exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square abs neg reciprocal sign sgn floor ceil
    round trunc frac erf erfc sin cos tan atan sinh cosh asinh logit clamp clamp_min clamp_max clip
    nan_to_num logical_not bitwise_not isnan isinf isfinite bernoulli zeros_like ones_like
    full_like empty_like rand_like randn_like fill zero uniform normal dropout feature_dropout
    alpha_dropout feature_alpha_dropout native_dropout positive
    """.split()
)
def _unary(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    labels, value = context.labels(x), node.meta["val"]
    return [labels] * len(value) if isinstance(value, (tuple, list)) else labels


@register_operator(
    *"""
    contiguous clone alias detach to _to_copy type_as lift_fresh lift_fresh_copy float double half
    bfloat16 requires_grad
    """.split()
)
def _same(context: Context, node: Node, x: Any, *_: Any, **__: Any) -> Any:
    return x  # a parameter stays one


@register_operator(
    *"""
    mul div divide multiply true_divide floor_divide remainder fmod pow
    float_power maximum minimum fmax fmin eq ne lt le gt ge logical_and logical_or logical_xor
    bitwise_and bitwise_or bitwise_xor __and__ __or__ __xor__ where masked_fill atan2
    copy hypot xlogy copysign heaviside
    """.split()
)
def meet(context: Context, node: Node, *args: Any, **kwargs: Any) -> Tensor:
    """Labels that meet are merged; what is spread over another tensor's channels has to stay."""
    operands = [a for a in (*args, *kwargs.values()) if isinstance(a, (Tensor, Param))]
    return context.join(node, [context.labels(a) for a in operands])


@register_operator("add", "sub", "rsub", "subtract", "addcmul", "addcdiv", "lerp")
def _sum(context: Context, node: Node, *args: Any, **kwargs: Any) -> Tensor:
    """Labels meet; of activations, it is a sum that couples the layers that made them."""
    joined = meet(context, node, *args, **kwargs)
    if sum(isinstance(a, Tensor) for a in (*args, *kwargs.values())) > 1:
        context.add_up(joined)
    return joined


@register_operator("expand_as")
def _expand_as(context: Context, node: Node, x: Any, other: Any) -> Tensor:
    """As wide as `other`, however wide that is."""
    return context.join(node, [context.labels(x), context.labels(other)])


@register_operator("broadcast_tensors")
def _broadcast_tensors(context: Context, node: Node, tensors: Sequence[Any]) -> list[Tensor]:
    joined = context.join(node, [context.labels(t) for t in tensors])
    return [joined] * len(tensors)


@register_operator(
    *"""
    softmax _softmax log_softmax _log_softmax softmin cumsum cumprod cummax cummin logcumsumexp sort
    argsort topk
    """.split()
)
def _across(context: Context, node: Node, x: Any, *args: Any, **kwargs: Any) -> Any:
    bound = arguments(node, [x, *args], kwargs)
    labels, dim = context.labels(x), bound.get("dim", -1)
    if dim % max(labels.dim(), 1) in varying(labels):
        context.misplace(node, labels, f"channels compete in {context.where(node)}")
        return fixed_like(node.meta["val"])
    value = node.meta["val"]
    if context.shape(node) != tuple(labels.shape):  # the first k places
        labels = labels.narrow(dim, 0, 1).expand(context.shape(node))
    return [labels] * len(value) if isinstance(value, (tuple, list)) else labels


@register_operator("glu")
def _glu(context: Context, node: Node, x: Any, dim: int = -1) -> Tensor:
    value, gate = context.labels(x).chunk(2, dim)
    return context.join(node, [value, gate])


@register_operator(
    "new_zeros", "new_ones", "new_full", "new_empty", "sym_size", "_assert_tensor_metadata"
)
def _constant(context: Context, node: Node, *_: Any, **__: Any) -> Any:
    """The tensor lends its type, not its values."""
    value = node.meta.get("val")
    return fixed_like(value) if value is not None else fixed(())
