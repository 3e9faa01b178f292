"""The table of propagation rules: what an ATen operator does to channel labels.

A rule receives label tensors (or `Param`s) where the operator receives activations (or parameters)
and returns label tensors of the operator's output shapes. An operator without a rule freezes
whatever reaches it: unknown never means wrong, it means less prunable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning_env.graph.tracing.context import Context, flatten, shape_of
from pruning_env.graph.tracing.labels import varying
from pruning_env.graph.tracing.trace import Param
from pruning_env.graph.tracing.weights import Weight

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
WEIGHT_RULES: dict[str, Rule] = {}
"""The rules for what lies between parameters and the weight of a layer, see `rules.weights`."""


def register_operator(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for ATen operators by name, without overload and in-place underscore."""

    def register(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return register


def operator_name(node: Node) -> str:
    """Name of the ATen operator that `node` calls, without overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.partition("::")[2] if schema is not None else str(node.target)


def apply_rule(context: Context, node: Node, args: Any, kwargs: Any) -> Any:
    """The labels that `node` returns for the given arguments."""
    name = operator_name(node)
    if node in context.computed and any(isinstance(a, (Param, Weight)) for a in flatten(args)):
        function = WEIGHT_RULES.get(name)
    else:
        function = RULES.get(name) or RULES.get(name.rstrip("_"))
    if function is None:
        return context.give_up(node, [args, kwargs])
    try:
        result = function(context, node, *args, **kwargs)
        _check_shapes(node, result)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        # An overload or argument the rule was not written for: the channels stay, nothing breaks.
        return context.give_up(
            node, [args, kwargs], f"the rule for {context.where(node)} failed: {error}"
        )
    in_place = name.endswith("_") and not name.endswith("__") and name not in RULES
    if in_place and _moves(context, args[0], result):
        # Whoever still holds the tensor, or a view of it, would read channels unawares.
        return context.give_up(
            node, [result, args, kwargs], f"written into another tensor by {context.where(node)}"
        )
    return result


def _moves(context: Context, target: Any, result: Any) -> bool:
    """Whether channels come to lie in a tensor where it had none."""
    if isinstance(target, Weight) or isinstance(result, Weight):
        return True
    return varying(context.labels(target)) != varying(context.labels(result))


def _check_shapes(node: Node, result: Any) -> None:
    """Labels must have the shapes of the values, or a rule got an argument it does not know."""
    value = node.meta.get("val")
    values, results = (x if isinstance(x, (tuple, list)) else [x] for x in (value, result))
    for given, labels in zip(values, results, strict=True):
        if isinstance(given, Tensor) and shape_of(given) != tuple(labels.shape):
            raise ValueError(f"labels of shape {tuple(labels.shape)} for {tuple(given.shape)}")


def arguments(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound.update(zip((a.name for a in schema.arguments), args, strict=False))
    return bound | kwargs
