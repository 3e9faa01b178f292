"""Rules for recurrent layers: their inputs and their hidden units are channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from pruning_env.graph.tracing.context import Context
from pruning_env.graph.tracing.labels import compact, spread
from pruning_env.graph.tracing.rules.registry import operator_name, register_operator
from pruning_env.graph.tracing.trace import Param

_GATES = {"lstm": 4, "gru": 3, "rnn": 1}


def _gates(node: Node) -> int:
    """How often the rows of a weight repeat the hidden units."""
    return _GATES[operator_name(node).partition("_")[0]]


@register_operator("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(
    context: Context,
    node: Node,
    x: Any,
    states: Any,
    params: Sequence[Any],
    biases: bool,
    layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> list[Tensor]:
    """Layers of one hidden size, of which the module has one number: they share their units."""
    if not isinstance(params, (list, tuple)):
        raise ValueError("a packed sequence")
    ways = 2 if bidirectional else 1
    each = len(params) // (layers * ways)
    inputs = context.channels_of(node, x, 2)
    steps = x.shape[0] * x.shape[1]
    units = context.fresh(params[0].shape[0] // _gates(node))
    projects = each % 2 == 1  # the last of every layer's is then the projection
    made = context.fresh(params[each - 1].shape[0]) if projects else units
    if projects:
        reason = f"{context.where(node)} projects where it has two sizes, which may become equal"
        context.freeze(units, reason)
        context.freeze(made, reason)
    for place in range(0, len(params), each):
        own = params[place : place + each]
        into = inputs if place < ways * each else made.repeat(ways)
        _own_gates(context, node, own[0], own[1], own[2:4] if biases else (), into, units, made)
        if projects:
            context.own(node, own[-1], 0, made, "out")
            context.own(node, own[-1], 1, units, "in")
        for weight in (w for w in own if len(w.shape) > 1):
            context.multiply(weight, steps)
    given = states if isinstance(states, (list, tuple)) else [states]
    names = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    ends = [made, units][: len(given)]
    for name, state, labels in zip(names, given, ends, strict=True):
        _begin(context, node, name, state, labels)
    shapes = [tuple(value.shape) for value in node.meta["val"]]
    results = (made.repeat(ways), *ends)
    return [spread(end, shape, -1) for end, shape in zip(results, shapes, strict=True)]


@register_operator("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def _cell(
    context: Context,
    node: Node,
    x: Any,
    states: Any,
    weight: Any,
    recurrent: Any,
    *biases: Any,
) -> Any:
    """One step of a recurrent layer."""
    inputs = context.channels_of(node, x, 1)
    units = context.fresh(recurrent.shape[1])
    _own_gates(context, node, weight, recurrent, biases, inputs, units, units)
    for matrix in (weight, recurrent):
        context.multiply(matrix, x.shape[0])
    given = states if isinstance(states, (list, tuple)) else [states]
    names = node.args[1] if isinstance(node.args[1], (list, tuple)) else [node.args[1]]
    for name, state in zip(names, given, strict=True):
        _begin(context, node, name, state, units)
    result = spread(units, context.shape(node), -1)
    return [result] * len(given) if isinstance(states, (list, tuple)) else result


def _own_gates(
    context: Context,
    node: Node,
    weight: Any,
    recurrent: Any,
    biases: Sequence[Any],
    into: Tensor,
    units: Tensor,
    made: Tensor,
) -> None:
    """Rows for every gate, and columns for what comes in and for what was made a step before."""
    if not isinstance(weight, Param) or not isinstance(recurrent, Param):
        raise ValueError("its weights are computed in forward")
    rows = units.repeat(_gates(node))
    context.own(node, weight, 0, rows, "out")
    context.own(node, weight, 1, into, "in")
    context.own(node, recurrent, 0, rows, "out")
    context.own(node, recurrent, 1, made, "in")
    for bias in biases:
        context.own(node, bias, 0, rows, "out")


def _begin(context: Context, node: Node, name: Any, state: Any, units: Tensor) -> None:
    """The state before the first step: zeros are as many as there are units."""
    labels = context.labels(state)
    if isinstance(name, Node) and operator_name(name) in _ZEROS and not compact(labels).any():
        module = context.model.get_submodule(context.calls.module_of(name))
        if not isinstance(module, (nn.RNNBase, nn.RNNCellBase)):  # surgery tells these
            context.number(name, units, [units])
        return
    context.merge(node, context.channels_of(node, state, -1), units)


_ZEROS = ("zeros", "new_zeros")
