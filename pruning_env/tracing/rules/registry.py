"""The table of propagation rules: what an ATen operator does to channel labels.

A rule receives label tensors (or `Param`s) where the operator receives activations (or parameters)
and returns label tensors of the operator's output shapes. An operator without a rule freezes
whatever reaches it: unknown never means wrong, it means less prunable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.fx import Node

from pruning_env.tracing.context import Context

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


def arguments(node: Node, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments by the names of the operator's schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    bound = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    bound.update(zip((a.name for a in schema.arguments), args, strict=False))
    return bound | kwargs
