"""Capture a model with `torch.export` and run its graph on channel labels instead of numbers.

The result is a `Trace`: which label owns which index of which tensor, what was merged or frozen and
why. The rules for single operators live in `rules`; turning a trace into groups of channels is
the business of `grouping`.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from pruning_env.graph.example import Example, shared_twin
from pruning_env.graph.tracing.calls import CONSTANT, Call, Calls
from pruning_env.graph.tracing.context import Context, fixed_like, flatten
from pruning_env.graph.tracing.labels import along, compact, varying
from pruning_env.graph.tracing.rules import apply_rule, computed_weights
from pruning_env.graph.tracing.trace import Adapter, Param, Trace
from pruning_env.graph.tracing.weights import Weight
from pruning_env.graph.untouched import untouched


class Capture:
    """A model's exported graphs: in eval mode, and in train mode where that uses more of it.

    Args:
        model: The network; what is run is a copy that shares its tensors.
        example: What it is called with.
        caches: `(module, attribute)` of what forward keeps from one call to the next: emptied in
            the copy, or a graph would begin with what is in them.

    Raises:
        ValueError: When `torch.export` cannot capture the model.
    """

    def __init__(
        self, model: nn.Module, example: Example, caches: Collection[tuple[str, str]] = ()
    ) -> None:
        self._model, self._example, self._caches = model, example, caches
        self._batch = max(1, example.batch)
        self._uncaptured: dict[str, str] = {}
        self._programs = {"eval": self._export(example, training=False)}
        if self._unseen():
            # Parameters that eval mode never touches (auxiliary heads): what feeds them is only
            # known in train mode.
            self.add_training()

    def add_training(self) -> bool:
        """Capture train mode, too; False when that was tried before, or cannot be done."""
        if "train" in self._programs or self._uncaptured:
            return False
        # Two images, because batch norm refuses to train on one value per channel.
        doubled = self._example.map(
            lambda v: torch.cat([v, v]) if v.dim() and v.shape[0] == 1 else v
        )
        try:
            self._programs["train"] = self._export(doubled, training=True)
        except ValueError as error:
            self._uncaptured = {name: str(error) for name in self._unseen()}
            return False
        return True

    def _unseen(self) -> list[str]:
        used = _used_tensors(self._model, self._programs["eval"])
        return [name for name, _ in self._model.named_parameters() if name not in used]

    def _export(self, example: Example, *, training: bool) -> ExportedProgram:
        model = shared_twin(self._model, self._caches).train(training)
        with untouched(self._model), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return torch.export.export(model, example.args, dict(example.kwargs), strict=False)
            except Exception as error:
                lines = str(error).strip().splitlines() or [type(error).__name__]
                mode = "train" if training else "eval"
                raise ValueError(
                    f"model: torch.export cannot capture {type(model).__name__} in {mode} mode "
                    f"({type(error).__name__}: {lines[0]}); allowed are modules whose forward does "
                    "not branch on tensor values"
                ) from error

    def trace(self, flipped: Collection[str] = ()) -> Trace:
        """Run the graphs on labels.

        Args:
            flipped: Keys of `Trace.splits` to read the other way round.
        """
        trace = Trace(batch=self._batch, uncaptured=dict(self._uncaptured))
        for phase, program in self._programs.items():
            costs = list(trace.multiplications), list(trace.products), trace.constant_macs
            _interpret(trace, self._model, program, phase, flipped)
            if phase == "train":  # cost is the cost of inference
                trace.multiplications, trace.products, trace.constant_macs = costs
        return trace


def _aliases(model: nn.Module) -> dict[str, str]:
    """Every name of every parameter and buffer -> the first name of the same tensor."""
    first = {id(p): name for name, p in model.named_parameters()}
    first |= {id(b): name for name, b in model.named_buffers()}
    return {
        name: first[id(tensor)]
        for source in (model.named_parameters, model.named_buffers)
        for name, tensor in source(remove_duplicate=False)
    }


def _tensors(model: nn.Module, program: ExportedProgram) -> Iterator[tuple[Node, str | None]]:
    """The inputs of the graph that hold no activation, with their names if the model has them."""
    aliases = _aliases(model)
    specs = {getattr(s.arg, "name", None): s for s in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        spec = specs.get(node.name) if node.op == "placeholder" else None
        if spec is not None and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            yield node, aliases[cast(str, spec.target)]
        elif spec is not None and spec.kind != InputKind.USER_INPUT:
            yield node, None


def _used_tensors(model: nn.Module, program: ExportedProgram) -> set[str]:
    return {name for node, name in _tensors(model, program) if name is not None and node.users}


def _interpret(
    trace: Trace,
    model: nn.Module,
    program: ExportedProgram,
    phase: str,
    flipped: Collection[str],
) -> None:
    """Run one exported graph on labels."""
    values: dict[Node, Any] = {}
    for node, name in _tensors(model, program):
        node.meta[CONSTANT] = True
        value = node.meta["val"]
        if name is None or not isinstance(value, Tensor):
            values[node] = fixed_like(value)
            continue
        shape = tuple(value.shape)
        dims = tuple(range(len(shape)))
        values[node] = Param(name, shape, dims, value.dtype.is_floating_point, shape)
    graphs = [m.graph for m in program.graph_module.modules() if isinstance(m, GraphModule)]
    calls = Calls(model, (node for graph in graphs for node in graph.nodes))
    islands = _islands(model, calls)
    context = Context(trace, model, calls, islands, phase, flipped)
    context.values = values
    outputs = _run(context, program.graph_module)
    for path in dict.fromkeys(module for module, _ in trace.sizes):
        for entry in dict.fromkeys(n for call in calls.of(path) for n in call.entries):
            given = context.values.get(entry)
            if isinstance(given, Tensor) and len(varying(given)) == 1:
                trace.entries.setdefault(path, []).append(along(given, varying(given)[0]))
    for value in flatten(outputs):
        for labels in value.labels() if isinstance(value, Weight) else [value]:
            if isinstance(labels, Tensor):
                trace.space.freeze(labels, "an output of the model")
    for path, call in islands.items():
        if not _adapt(context, trace.islands, path, [call]):
            for end in (*call.entries, *call.exits):
                context.give_up(end, values[end], f"{path} works at one width only")
    for taken in context.statistics:
        known = trace.statistics.get(taken.module)
        suits = _suits_any_width(context, taken.module, taken.labels)
        if not suits or not _adapt(context, trace.statistics, taken.module, calls.of(taken.module)):
            trace.space.freeze(torch.cat([taken.labels, taken.made]), taken.reason)
            trace.misplaced.append(taken.labels)
            if known is not None:
                trace.space.freeze(known.entry, taken.reason)


def _run(context: Context, graph_module: GraphModule, arguments: Sequence[Any] = ()) -> Any:
    """Interpret a graph, or a part of one that `forward` runs under a context manager."""
    values, given = context.values, iter(arguments)
    for node in graph_module.graph.find_nodes(op="placeholder"):
        if arguments:
            values[node] = next(given)
            node.meta[CONSTANT] = isinstance(values[node], (Param, Weight))
        elif node not in values:
            values[node] = fixed_like(node.meta.get("val"))
    for node in computed_weights(graph_module.graph):
        node.meta[CONSTANT] = True
        context.computed.add(node)
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "get_attr":
            constant = getattr(graph_module, str(node.target), None)
            values[node] = constant if isinstance(constant, GraphModule) else fixed_like(constant)
        elif node.op == "output":
            return map_arg(node.args[0], values.__getitem__)
        else:
            args = map_arg(node.args, values.__getitem__)
            kwargs = map_arg(node.kwargs, values.__getitem__)
            inner = [i for i, a in enumerate(args) if isinstance(a, GraphModule)]
            if node.target is operator.getitem:
                values[node] = args[0][args[1]]
            elif inner and str(node.target) in _TRANSPARENT:
                values[node] = _run(context, args[inner[0]], args[inner[0] + 1 :])
            else:
                values[node] = apply_rule(context, node, args, kwargs)
    return None


# What `torch.no_grad()` and `torch.autocast()` inside of forward are exported as.
_TRANSPARENT = ("wrap_with_set_grad_enabled", "wrap_with_autocast")


def _adapt(context: Context, adapters: dict[str, Adapter], path: str, calls: list[Call]) -> bool:
    """Record the labels at the ends of a module; False if it has not one input and one output."""
    for call in calls:
        entries, exits = call.entries, call.exits
        if len(entries) != 1 or len(exits) != 1:
            return False
        entry, exit = context.values[entries[0]], context.values[exits[0]]
        if not isinstance(entry, Tensor) or not isinstance(exit, Tensor):
            return False
        dims = {*varying(entry), *varying(exit)}
        dim = adapters[path].dim if path in adapters else min(dims, default=1)
        if dims - {dim} or dim >= min(entry.dim(), exit.dim()):
            return False
        found = Adapter(dim, along(entry, dim), along(exit, dim))
        known = adapters.setdefault(path, found)
        if len(known.entry) != len(found.entry) or len(known.exit) != len(found.exit):
            return False
        context.merge(entries[0], known.entry, found.entry)
        context.merge(exits[0], known.exit, found.exit)
    return bool(calls)


def _suits_any_width(context: Context, path: str, labels: Tensor) -> bool:
    """Whether the module at `path` is a norm or a gate of the channels `labels` that it is given.

    The masked twin of a model runs such modules at the pruned width, so they must not hide layers:
    they have one weight at the most, and make no channels of their own that they mix.
    """
    if not path:
        return False
    parameters = context.model.get_submodule(path).parameters()
    given = [context.values[n] for call in context.calls.of(path) for n in call.entries]
    known = torch.cat([compact(v).flatten() for v in given if isinstance(v, Tensor)])
    return sum(sum(n > 1 for n in p.shape) > 1 for p in parameters) <= 1 and bool(
        torch.isin(labels, known).all()
    )


def _islands(model: nn.Module, calls: Calls) -> dict[str, Call]:
    """Modules without parameters that pad their input's channels: they can run at full width.

    Such a module (the shortcut "option A" of CIFAR ResNets) holds channel numbers in its code that
    no pruner can change. Between a scatter to full width and a gather of the kept channels it works
    as it is. It must be called once, take one 3-D to 5-D tensor and return one.
    """
    found = {}
    for path in calls.paths():
        made = calls.of(path)
        if not path or len(made) > 1 or not any(map(_pads_channels, made[0].nodes)):
            continue
        module = model.get_submodule(path)
        if next(module.children(), None) is not None or module.state_dict():
            continue
        entries, exits = made[0].entries, made[0].exits
        if len(entries) == len(exits) == 1 and all(map(_is_feature_map, entries + exits)):
            found[path] = made[0]
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
