"""What an operator rule may ask and say while a graph is interpreted on channel labels.

`Context` is the interface that the rules in `rules` are written against; what they say goes into a
`Trace`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from pruning_env.graph.tracing.calls import Calls
from pruning_env.graph.tracing.labels import along, compact, fixed, varying
from pruning_env.graph.tracing.trace import ROLES, Owned, Param, Split, Trace
from pruning_env.graph.tracing.weights import Weight

ELEMENTWISE_LIMIT = 1 << 22  # labels; 32 MiB of int64, several times the largest position embedding


@dataclass(frozen=True)
class Statistics:
    """A module that mixes channels in a way that suits any number of them.

    Attributes:
        module: Its name.
        labels: The channels that it mixes, and does not make.
        made: Those that it makes, of a weight that depends on all it is given.
        reason: Why these freeze if the module cannot be run on the kept channels alone.
    """

    module: str
    labels: Tensor
    made: Tensor
    reason: str


class Context:
    """What an operator rule may ask and record while one exported graph is interpreted.

    Args:
        trace: The record.
        model: The exported module.
        calls: The calls of its modules.
        islands: Modules that run at full width.
        phase: Tells the graphs of one model apart ("eval" or "train").
        flipped: Keys of `Trace.splits` to read the other way round.

    Attributes:
        values: Labels of every node so far.
        statistics: Modules that mix channels.
        computed: Nodes between parameters and the weight of a layer, see `rules.weights`.
        crossed: By matrix with channels along its rows and its columns, the 1-D labels of its rows;
            its own labels are those of its columns.
    """

    def __init__(
        self,
        trace: Trace,
        model: nn.Module,
        calls: Calls,
        islands: Collection[str],
        phase: str,
        flipped: Collection[str],
    ) -> None:
        self.trace = trace
        self.model = model
        self.calls = calls
        self.values: dict[Node, Any] = {}
        self.statistics: list[Statistics] = []
        self.computed: set[Node] = set()
        self.crossed: dict[Any, Tensor] = {}
        self._elements = [_span(labels) for labels in trace.elementwise.values()]
        self._islands = islands
        self._phase = phase
        self._flipped = flipped

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the (first) tensor that `node` returns."""
        value = node.meta["val"]
        value = value[0] if isinstance(value, (tuple, list)) else value
        return shape_of(value)

    def where(self, node: Node) -> str:
        """The operator and the module it is called in, for messages."""
        name = getattr(node.target, "_schema", None)
        op = name.name.replace("aten::", "") if name is not None else str(node.target)
        return f"{op} in {self.calls.module_of(node) or 'the model'}"

    def in_island(self, node: Node) -> bool:
        """Whether `node` is in a module that runs at full width: any rearrangement is safe."""
        return self.calls.module_of(node) in self._islands

    def fresh(self, count: int) -> Tensor:
        """`count` new labels, 1-D."""
        return self.trace.space.fresh(count)

    def labels(self, value: Any) -> Tensor:
        """The label tensor of a value; a parameter gets one label per element.

        A computed weight has none: where it meets anything else, it is frozen.
        """
        if isinstance(value, Tensor):
            return value
        if not value.floating:
            return fixed(value.shape)
        size = math.prod(value.shape)
        if size > ELEMENTWISE_LIMIT:
            self.pin(value, "used element by element and too large to follow")
            return fixed(value.shape)
        if value.name not in self.trace.elementwise:
            labels = self.fresh(size).reshape(value.stored)
            self._elements.append(_span(labels))
            self.trace.elementwise[value.name] = labels
        seen = [d for d in value.dims if d >= 0]
        unseen = [d for d in range(len(value.stored)) if d not in seen]  # all of length 1
        return self.trace.elementwise[value.name].permute(seen + unseen).reshape(value.shape)

    def channels_of(self, node: Node, value: Any, dim: int) -> Tensor:
        """1-D labels of `value` along `dim`; all freeze if they change along another dimension."""
        labels = self.labels(value)
        dim %= labels.dim()
        if any(d != dim for d in varying(labels)):
            self.misplace(node, labels)
            return fixed((labels.shape[dim],))
        return along(labels, dim)

    def misplace(self, node: Node, labels: Tensor, reason: str | None = None) -> None:
        """Freeze labels that vary along a dimension where `node` does not expect channels."""
        self.trace.misplaced.append(torch.unique(compact(labels)))
        self.freeze(labels, reason or f"channels are not where {self.where(node)} expects them")

    def own(self, node: Node, value: Any, dim: int, labels: Tensor, role: str) -> None:
        """Let 1-D `labels` own dimension `dim` of a parameter; computed tensors are merged."""
        if value is None:
            return
        if isinstance(value, Weight):
            self._own_computed(node, value, dim, labels, role)
            return
        if not isinstance(value, Param):
            self.merge(node, self.channels_of(node, value, dim), labels)
            return
        if value.dims[dim] < 0:
            self.freeze(labels, f"{value.name} has no dimension for the channels of {node.name}")
            return
        key = value.name, value.dims[dim]
        if key not in self.trace.owned:
            self.trace.owned[key] = Owned(role, labels, role == "in")
            return
        known = self.trace.owned[key]  # a tensor that is used twice
        known.role = min(known.role, role, key=ROLES.index)
        known.consumes |= role == "in"
        self.merge(node, known.labels, labels)

    def _own_computed(
        self, node: Node, weight: Weight, dim: int, labels: Tensor, role: str
    ) -> None:
        factor = weight.merged(dim)
        if factor is None:
            reason = f"the weight of {self.where(node)} mixes channels with others"
            self.freeze(torch.cat([labels, *weight.labels()]), reason)
            return
        self.merge(node, factor.labels, labels)
        for name, stored in factor.keys:
            known = self.trace.owned[name, stored]
            if known.role != "channelwise" or (role == "out" and name in weight.sources):
                known.role = min(known.role, role, key=ROLES.index)
            known.consumes |= role == "in" and weight.keeps_zeros

    def join(
        self, node: Node, operands: Sequence[Tensor], shape: tuple[int, ...] | None = None
    ) -> Tensor:
        """The labels of an element-wise combination of several tensors, of `node`'s shape.

        Labels that meet are merged; what is spread over another tensor's channels has to stay.
        """
        shape = self.shape(node) if shape is None else shape
        full = [t.expand(shape) for t in operands]
        ways = [set(varying(t)) for t in full]
        rich = [i for i, way in enumerate(ways) if way]
        if not rich:
            for other in full[1:]:
                self.merge(node, compact(full[0]), compact(other))
            return full[0]
        # Where dimensions differ, channels of activations count for more than a parameter's values.
        rich.sort(key=lambda i: self._is_parameter(operands[i]))
        common = ways[rich[0]]
        for i in rich:
            common = common & ways[i] or common
        rich = [i for i in rich if common <= ways[i]]
        if any(ways[i] != common for i in rich):
            # A parameter with a value per channel and place meets channels: its places are tied.
            full = [
                self.settle(node, t, min(common)) if i in rich else t for i, t in enumerate(full)
            ]
            common = {min(common)}
        result = full[rich[0]]
        index = tuple(slice(None) if d in common else 0 for d in range(len(shape)))
        for i, labels in enumerate(full):
            if i in rich:
                self.merge(node, result[index], labels[index])
                continue
            self.freeze(operands[i], f"is spread over channels by {self.where(node)}")
            dim = min(common) - (len(shape) - operands[i].dim())
            if dim >= 0 and operands[i].shape[dim] > 1 and not compact(operands[i]).any():
                # a constant of the full width, written into the code
                self.misplace(
                    node, result, f"meets values that are not channels at {self.where(node)}"
                )
                return fixed(shape)
        return result

    def _is_parameter(self, labels: Tensor) -> bool:
        """Whether these are labels of a parameter's elements."""
        first = int(compact(labels).flatten()[0]) if labels.numel() else 0
        return any(first in elements for elements in self._elements)

    def settle(self, node: Node, labels: Tensor, keep: int) -> Tensor:
        """Make labels vary along one dimension only, `keep`, by merging over the others."""
        small = compact(labels)
        first = small
        for d in varying(labels):
            if d != keep:
                first = first.narrow(d, 0, 1)
        self.merge(node, small, first)
        return first.expand(labels.shape)

    def settle_split(
        self, node: Node, labels: Tensor, likely: int | None, numbered: Collection[int] = ()
    ) -> Tensor:
        """`settle` after a view that split the channels, and may have to be read another way.

        Args:
            node: The view.
            labels: What they become.
            likely: The factor that shrinks, for what the code shows. Where it shows nothing, that
                is the largest, and of equal ones the innermost: the others are numbers in the code.
            numbered: Dimensions of which the code takes each by its number: they do not shrink.

        The split is put on record where several factors may shrink; in another attempt, the next
        largest is the one that does.
        """
        dims = varying(labels)
        ranked = (
            sorted(
                (d for d in dims if d not in numbered or d == likely),
                key=lambda d: (d == likely, labels.shape[d], d),
                reverse=True,
            )
            or dims
        )
        if len(ranked) == 1:
            return self.settle(node, labels, ranked[0])
        key = f"{self._phase}/{node.name}"
        split = torch.unique(compact(labels))
        self.trace.splits[key] = Split(self.where(node), ranked[0] == dims[0], split)
        return self.settle(node, labels, ranked[key in self._flipped])

    def takes_apart(self, node: Node, parts: list[Tensor], *, fractions: bool) -> bool:
        """Whether to read uneven parts of channels as channels of their own; if so, they become it.

        Args:
            node: The operator that cuts.
            parts: 1-D labels of each part.
            fractions: Whether they can also be fractions of one number of channels: the split is
                put on record, and may be read so in another attempt.
        """
        key = f"{self._phase}/{node.name}"
        if fractions:
            whole = torch.unique(torch.cat(parts))
            self.trace.splits[key] = Split(self.where(node), True, whole)
            if key in self._flipped:
                return False
        self.trace.parts.append(parts)
        return True

    def number(self, node: Node, labels: Tensor, sizes: Sequence[Tensor] = ()) -> None:
        """Put on record that `node` was given a size in channels.

        Args:
            node: The operator.
            labels: Its channels.
            sizes: 1-D labels of what each of the sizes counts, likely ones first.
        """
        self.trace.numbered.append((self.where(node), torch.unique(compact(labels))))
        self.trace.sizes.append((self.calls.module_of(node), list(sizes)))

    def add_up(self, labels: Tensor) -> None:
        """Put on record that values with these labels are a sum."""
        self.trace.sums.append(torch.unique(compact(labels)))

    def merge(self, node: Node, a: Tensor, b: Tensor) -> None:
        """Tie labels that meet at `node`."""
        self.trace.space.merge(a, b, f"meets values that are not channels at {self.where(node)}")

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Forbid the removal of labels."""
        self.trace.space.freeze(labels, reason)

    def silence(self, labels: Tensor) -> None:
        """Let masks set channels to zero where they are made: no weight reads them."""
        self.trace.silenced.append(torch.unique(labels))

    def pin(self, param: Param, reason: str) -> None:
        """Forbid slicing a parameter, and so the removal of every channel that owns part of it."""
        self.trace.pinned.setdefault(param.name, reason)

    def multiply(self, weight: Param | Weight, rows: int) -> None:
        """Record rows x elements of `weight` multiply-accumulates."""
        if isinstance(weight, Param):
            self.trace.multiplications.append((weight.name, rows))
            return
        axes = [weight.merged(d) for d, axis in enumerate(weight.axes) if axis]
        lines = [factor.labels for factor in axes if factor is not None]
        rows *= math.prod(weight.shape) // math.prod(map(len, lines))
        self.trace.products.append((tuple(lines), rows))

    def take_statistics(
        self, node: Node, labels: Tensor, reason: str, made: Tensor | None = None
    ) -> None:
        """Record that the module around `node` mixes all channels in a way that suits any number.

        Once the graph has been interpreted, the labels freeze with `reason` unless that module can
        be run on the kept channels alone. See `Statistics`.
        """
        made = labels[:0] if made is None else made
        self.statistics.append(Statistics(self.calls.module_of(node), labels, made, reason))

    def hold_two(self, node: Node, labels: Tensor) -> None:
        """Keep two of a line of labels: a variance of a single value does not exist."""
        two = torch.cat([labels[:1], labels[labels != labels[0]][:1]])
        self.freeze(two, f"{self.where(node)} needs two values")

    def give_up(self, node: Node, values: Any, reason: str | None = None) -> Any:
        """Freeze everything that reaches `node`; its results are `FIXED`."""
        reason = reason or f"no rule for {self.where(node)}"
        for value in flatten(values):
            if isinstance(value, Param):
                self.pin(value, reason)
            elif isinstance(value, Weight):
                for labels in value.labels():
                    self.freeze(labels, reason)
            elif isinstance(value, Tensor):
                self.freeze(value, reason)
        return fixed_like(node.meta.get("val"))


def _span(labels: Tensor) -> range:
    """The labels of a parameter's elements, which are handed out in a row."""
    start = int(labels.flatten()[0]) if labels.numel() else 0
    return range(start, start + labels.numel())


def shape_of(value: Tensor) -> tuple[int, ...]:
    """The shape of an exported value; a length that depends on data counts as 1."""
    return tuple(
        1 if isinstance(n, torch.SymInt) and not n.node.has_hint() else int(n) for n in value.shape
    )


def fixed_like(value: Any) -> Any:
    """`FIXED` labels in the structure of an exported node's value."""
    if isinstance(value, Tensor):
        return fixed(shape_of(value))
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
