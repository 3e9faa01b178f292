"""Capture a model with `torch.export` and run its graph on channel labels instead of numbers.

The result is a `Trace`: which label owns which index of which tensor, what was merged or frozen and
why. The rules for single operators live in `rules`; turning a trace into groups of channels is
the business of `grouping`.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.fx.node import map_arg

from pruning_env.tracing.context import Context, Island, Param, Trace, fixed_like, flatten
from pruning_env.tracing.rules import apply_rule


def trace_labels(model: nn.Module, example_input: Tensor | tuple[Tensor, ...]) -> Trace:
    """Interpret `model` on labels, in eval mode, and in train mode where that uses more of it.

    Raises:
        ValueError: When `torch.export` cannot capture the model.
    """
    inputs = example_input if isinstance(example_input, tuple) else (example_input,)
    if not inputs or not all(isinstance(value, Tensor) for value in inputs):
        raise ValueError(
            f"example_input must be a tensor or a tuple of tensors, got "
            f"{type(example_input).__name__}"
        )
    trace = Trace(batch=max(1, inputs[0].shape[0]) if inputs[0].dim() else 1)
    reached = _interpret(trace, model, _export(model, inputs, training=False))
    unseen = [name for name, _ in model.named_parameters() if name not in reached]
    if unseen:
        # Parameters that eval mode never touches (auxiliary heads): what feeds them is only known
        # in train mode. Two images, because batch norm refuses to train on one value per channel.
        doubled = tuple(torch.cat([v, v]) if v.dim() and v.shape[0] == 1 else v for v in inputs)
        macs = list(trace.multiplications), trace.constant_macs
        try:
            _interpret(trace, model, _export(model, doubled, training=True))
        except ValueError as error:
            trace.uncaptured = {name: str(error) for name in unseen}
        trace.multiplications, trace.constant_macs = macs  # cost is the cost of inference
    return trace


def _export(
    model: nn.Module, inputs: tuple[Tensor, ...], *, training: bool
) -> torch.export.ExportedProgram:
    with _mode(model, training), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.export.export(model, inputs, strict=False)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            mode = "train" if training else "eval"
            raise ValueError(
                f"model: torch.export cannot capture {type(model).__name__} in {mode} mode "
                f"({type(error).__name__}: {lines[0]}); allowed are modules whose forward does not "
                "branch on tensor values"
            ) from error


@contextmanager
def _mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Train or eval mode for a while; every module gets its own flag back."""
    before = [(module, module.training) for module in model.modules()]
    model.train(training)
    try:
        yield
    finally:
        for module, flag in before:
            module.training = flag


def _interpret(trace: Trace, model: nn.Module, program: torch.export.ExportedProgram) -> set[str]:
    """Run one exported graph on labels; returns the names of the parameters it uses."""
    canonical = {id(p): name for name, p in model.named_parameters()}
    canonical |= {id(b): name for name, b in model.named_buffers()}
    aliases = {
        name: canonical[id(tensor)]
        for source in (model.named_parameters, model.named_buffers)
        for name, tensor in source(remove_duplicate=False)
    }
    islands = _islands(model, program.graph.nodes)
    context = Context(trace, model, islands)
    values = context.values
    specs = {
        spec.arg.name: spec
        for spec in program.graph_signature.input_specs
        if hasattr(spec.arg, "name")
    }
    used: set[str] = set()
    for node in program.graph.nodes:
        if node.op == "placeholder":
            spec, value = specs.get(node.name), node.meta.get("val")
            if spec is not None and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
                name = aliases[spec.target]
                if node.users:
                    used |= {name, spec.target}
                shape = tuple(value.shape)
                values[node] = Param(
                    name, shape, tuple(range(len(shape))), value.dtype.is_floating_point
                )
            else:
                values[node] = fixed_like(value)
        elif node.op == "call_function":
            args = map_arg(node.args, values.__getitem__)
            kwargs = map_arg(node.kwargs, values.__getitem__)
            if node.target is operator.getitem:
                values[node] = args[0][args[1]]
            else:
                values[node] = apply_rule(context, node, args, kwargs)
        elif node.op == "output":
            for value in flatten(map_arg(node.args, values.__getitem__)):
                if isinstance(value, Tensor):
                    trace.space.freeze(value, "an output of the model")
        else:
            values[node] = None  # get_attr: a constant subgraph or tensor, which no rule accepts
    for path, (entry, exit) in islands.items():
        island = Island(
            context.channels_of(entry, values[entry], 1), context.channels_of(exit, values[exit], 1)
        )
        known = trace.islands.setdefault(path, island)
        if known is not island:
            context.merge(entry, known.entry, island.entry)
            context.merge(exit, known.exit, island.exit)
    return used


def _islands(model: nn.Module, nodes: Any) -> dict[str, tuple[Node, Node]]:
    """Modules without parameters that pad their input's channels: they can run at full width.

    Such a module (the shortcut "option A" of CIFAR ResNets) holds channel numbers in its code that
    no pruner can change. Between a scatter to full width and a gather of the kept channels it works
    as it is. It must be called once, take one 3-D to 5-D tensor and return one.
    """
    members: dict[str, list[Node]] = {}
    calls: dict[str, set[str]] = {}
    for node in nodes:
        stack = node.meta.get("nn_module_stack")
        if node.op == "call_function" and stack:
            key, (path, _) = list(stack.items())[-1]
            path = path.partition("@")[0]
            members.setdefault(path, []).append(node)
            calls.setdefault(path, set()).add(key)
    found = {}
    for path, inside in members.items():
        pads = [n for n in inside if _pads_channels(n)]
        if not path or not pads or len(calls[path]) > 1:
            continue
        module = model.get_submodule(path)
        if next(module.children(), None) is not None or module.state_dict():
            continue
        own = set(inside)
        entries = {a for n in inside for a in n.all_input_nodes if a not in own}
        exits = {n for n in inside if any(user not in own for user in n.users)}
        ends = [*entries, *exits]
        if len(entries) == len(exits) == 1 and all(_is_feature_map(n) for n in ends):
            found[path] = (entries.pop(), exits.pop())
    return found


def _is_feature_map(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and 3 <= value.dim() <= 5


def _pads_channels(node: Node) -> bool:
    if getattr(node.target, "__name__", "").split(".")[0] not in ("pad", "constant_pad_nd"):
        return False
    source, amounts = cast(Node, node.args[0]), cast("list[int]", node.args[1])
    dims = source.meta["val"].dim()
    return any(amounts[2 * (dims - 2) : 2 * (dims - 1)])
