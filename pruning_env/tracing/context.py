"""What interpreting a graph on channel labels records, and what an operator rule may ask and say.

`Trace` is the record, `Context` the interface that the rules in `rules` are written against.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.fx import Node

from pruning_env.tracing.labels import LabelSpace, along, fixed, varying


@dataclass(frozen=True)
class Param:
    """A parameter or buffer as it enters the graph, possibly with its dimensions permuted.

    Attributes:
        name: Its name in the model's `state_dict`.
        shape: Its shape as seen by the operator, `dims` applied.
        dims: For each dimension as seen, the dimension of the stored tensor.
        floating: Whether it holds real numbers (index tables do not).
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    floating: bool


@dataclass(frozen=True)
class Owned:
    """1-D labels that own one dimension of one tensor, in a role ("out", "channelwise" or "in")."""

    role: str
    labels: Tensor


@dataclass
class Island:
    """A parameter-free module that is to run at full width, with the labels at its two ends."""

    entry: Tensor
    exit: Tensor


@dataclass
class Trace:
    """What interpreting a model on labels found out.

    Attributes:
        space: Labels, their merges and freezes.
        owned: What owns each (tensor, dim), in execution order.
        elementwise: Parameters that were used element by element, with one label per element.
        multiplications: `(weight name, rows)` per convolution or linear call: its
            multiply-accumulates are rows times the weight's number of elements.
        constant_macs: Multiply-accumulates of matrix products without a weight.
        statistics: Normalisation modules whose statistics run over removable channels, with the
            channel dimension and labels of their input.
        islands: Parameter-free modules that run at full width, by module name.
        batch: Batch size of the example input.
        pinned: Parameters that may not be sliced, with the reason.
        uncaptured: Parameters used in train mode only, where export failed, with the reason.
    """

    space: LabelSpace = field(default_factory=LabelSpace)
    owned: dict[tuple[str, int], Owned] = field(default_factory=dict)
    elementwise: dict[str, Tensor] = field(default_factory=dict)
    pinned: dict[str, str] = field(default_factory=dict)
    multiplications: list[tuple[str, int]] = field(default_factory=list)
    constant_macs: int = 0
    statistics: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    islands: dict[str, Island] = field(default_factory=dict)
    batch: int = 1
    uncaptured: dict[str, str] = field(default_factory=dict)


ELEMENTWISE_LIMIT = 1 << 22  # labels; 32 MiB of int64, several times the largest position embedding


class Context:
    """What an operator rule may ask and record while one exported graph is interpreted."""

    def __init__(
        self, trace: Trace, model: nn.Module, islands: dict[str, tuple[Node, Node]]
    ) -> None:
        self.trace = trace
        self.model = model
        self.values: dict[Node, Any] = {}
        self._islands = islands

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the (first) tensor that `node` returns."""
        value = node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        return tuple(int(n) for n in value.shape)

    def module_of(self, node: Node) -> str:
        """Name of the innermost module that calls `node`; "" for the model itself."""
        stack = node.meta.get("nn_module_stack") or {}
        return next(reversed(list(stack.values())), ("", None))[0].partition("@")[0]

    def where(self, node: Node) -> str:
        """The operator and the module it is called in, for messages."""
        name = getattr(node.target, "_schema", None)
        op = name.name.replace("aten::", "") if name is not None else str(node.target)
        return f"{op} in {self.module_of(node) or 'the model'}"

    def in_island(self, node: Node) -> bool:
        """Whether `node` is in a module that runs at full width: any rearrangement is safe."""
        return self.module_of(node) in self._islands

    def fresh(self, count: int) -> Tensor:
        """`count` new labels, 1-D."""
        return self.trace.space.fresh(count)

    def labels(self, value: Any) -> Tensor:
        """The label tensor of a value; a parameter gets one label per element."""
        if isinstance(value, Tensor):
            return value
        if not value.floating:
            return fixed(value.shape)
        size = math.prod(value.shape)
        if size > ELEMENTWISE_LIMIT:
            self.pin(value, "used element by element and too large to follow")
            return fixed(value.shape)
        if value.name not in self.trace.elementwise:
            stored = [value.shape[value.dims.index(d)] for d in range(len(value.dims))]
            self.trace.elementwise[value.name] = self.fresh(size).reshape(stored)
        return self.trace.elementwise[value.name].permute(value.dims)

    def channels_of(self, node: Node, value: Any, dim: int) -> Tensor:
        """1-D labels of `value` along `dim`; all freeze if they change along another dimension."""
        labels = self.labels(value)
        dim %= labels.dim()
        if any(d != dim for d in varying(labels)):
            self.trace.space.freeze(
                labels, f"channels are not where {self.where(node)} expects them"
            )
            return fixed((labels.shape[dim],))
        return along(labels, dim)

    def own(self, node: Node, value: Any, dim: int, labels: Tensor, role: str) -> None:
        """Let 1-D `labels` own dimension `dim` of a parameter; computed tensors are merged."""
        if value is None:
            return
        if isinstance(value, Param):
            known = self.trace.owned.setdefault((value.name, value.dims[dim]), Owned(role, labels))
            if known.labels is not labels:  # a weight that is used twice
                self.merge(node, known.labels, labels)
        else:
            self.merge(node, self.channels_of(node, value, dim), labels)

    def merge(self, node: Node, a: Tensor, b: Tensor) -> None:
        """Tie labels that meet at `node`."""
        self.trace.space.merge(a, b, f"meets values that are not channels at {self.where(node)}")

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Forbid the removal of labels."""
        self.trace.space.freeze(labels, reason)

    def pin(self, param: Param, reason: str) -> None:
        """Forbid slicing a parameter, and so the removal of every channel that owns part of it."""
        self.trace.pinned.setdefault(param.name, reason)

    def multiply(self, weight: Param, rows: int) -> None:
        """Record rows x elements of `weight` multiply-accumulates."""
        self.trace.multiplications.append((weight.name, rows))

    def give_up(self, node: Node, values: Any, reason: str | None = None) -> Any:
        """Freeze everything that reaches `node`; its results are `FIXED`."""
        reason = reason or f"no rule for {self.where(node)}"
        for value in flatten(values):
            if isinstance(value, Param):
                self.pin(value, reason)
            elif isinstance(value, Tensor):
                self.freeze(value, reason)
        return fixed_like(node.meta.get("val"))


def fixed_like(value: Any) -> Any:
    """`FIXED` labels in the structure of an exported node's value."""
    if isinstance(value, Tensor):
        return fixed(tuple(int(n) for n in value.shape))
    if isinstance(value, (tuple, list)):
        return [fixed_like(v) for v in value]
    return value


def flatten(value: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists and dicts."""
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from flatten(item)
    elif isinstance(value, dict):
        yield from flatten(list(value.values()))
    else:
        yield value
