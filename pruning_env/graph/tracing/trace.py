"""The record of what interpreting a graph on channel labels found out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import Tensor

from pruning_env.graph.tracing.labels import LabelSpace


@dataclass(frozen=True)
class Param:
    """A parameter or buffer as it enters the graph, possibly with its dimensions permuted.

    Attributes:
        name: Its name in the model's `state_dict`.
        shape: Its shape as seen by the operator, `dims` applied.
        dims: For each dimension as seen, the dimension of the stored tensor; -1 for one of length 1
            that the stored tensor does not have.
        floating: Whether it holds real numbers (index tables do not).
        stored: Its shape in the `state_dict`.
    """

    name: str
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    floating: bool
    stored: tuple[int, ...]


@dataclass
class Owned:
    """1-D labels that own one dimension of one tensor.

    Attributes:
        role: "out", "channelwise" or "in"; of several uses the first in this order.
        labels: One per index.
        consumes: Whether any use multiplies the tensor with the channels along this dimension.
    """

    role: str
    labels: Tensor
    consumes: bool


ROLES = ("out", "channelwise", "in")


@dataclass
class Adapter:
    """The labels at the two ends of a module, along `dim` of its input and output."""

    dim: int
    entry: Tensor
    exit: Tensor


@dataclass(frozen=True)
class Split:
    """A view or a cut that splits channels, and that can be read in two ways.

    Attributes:
        where: The operator and its module.
        outer: Whether, before any flip, the outer factor was taken for the one that shrinks, or the
            parts for channels of their own.
        labels: The labels that it splits, each once.
    """

    where: str
    outer: bool
    labels: Tensor


@dataclass
class Trace:
    """What interpreting a model on labels found out.

    Attributes:
        space: Labels, their merges and freezes.
        owned: What owns each (tensor, dim), in execution order.
        elementwise: Parameters that were used element by element, with one label per element.
        multiplications: `(weight name, rows)` per convolution or linear call: its
            multiply-accumulates are rows times the weight's number of elements.
        products: `(axes, rows)` of products without a stored weight: rows multiply-accumulates per
            choice of one label from each of the axes, which are 1-D labels.
        constant_macs: Multiply-accumulates of such products that no channel changes.
        geometry: Largest extent of the kernel and of the stride of each convolution, by weight.
        statistics: Modules that take statistics over removable channels, or hold their number
            without a tensor to show it.
        islands: Parameter-free modules that run at full width, by module name.
        batch: Batch size of the example input.
        pinned: Parameters that may not be sliced, with the reason.
        uncaptured: Parameters used in train mode only, where export failed, with the reason.
        splits: Views that split a channel dimension in a way that leaves open which factor is a
            number in the code.
        parts: 1-D labels of each part of channels that code cuts unevenly, by cut: the numbers of
            channels in them are numbers of their own.
        silenced: Labels of channels that activations are summed over: masks set them to zero where
            they are made.
        misplaced: Labels that froze because a channel dimension was not where an operator has one;
            a split that was read the wrong way round may be to blame.
        numbered: Operators that were given sizes in channels, which may come from a shape (and
            shrink with it) or from the code: where, and the labels.
        sizes: The module that gave such sizes, and what each of them counts, as 1-D labels.
        sums: Labels of what adding two values gave, each once per sum.
        entries: By module, 1-D labels of the channels that it is given.
    """

    space: LabelSpace = field(default_factory=LabelSpace)
    owned: dict[tuple[str, int], Owned] = field(default_factory=dict)
    elementwise: dict[str, Tensor] = field(default_factory=dict)
    pinned: dict[str, str] = field(default_factory=dict)
    multiplications: list[tuple[str, int]] = field(default_factory=list)
    products: list[tuple[tuple[Tensor, ...], int]] = field(default_factory=list)
    constant_macs: int = 0
    geometry: dict[str, tuple[int, int]] = field(default_factory=dict)
    statistics: dict[str, Adapter] = field(default_factory=dict)
    islands: dict[str, Adapter] = field(default_factory=dict)
    batch: int = 1
    uncaptured: dict[str, str] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    parts: list[list[Tensor]] = field(default_factory=list)
    silenced: list[Tensor] = field(default_factory=list)
    misplaced: list[Tensor] = field(default_factory=list)
    numbered: list[tuple[str, Tensor]] = field(default_factory=list)
    sizes: list[tuple[str, list[Tensor]]] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    entries: dict[str, list[Tensor]] = field(default_factory=dict)

    def ignore(self, tensors: Collection[str]) -> None:
        """Forbid the removal of channels that have an output or a value of their own in these."""
        for (tensor, _), owned in self.owned.items():
            if owned.role != "in" and tensor in tensors:
                self.space.freeze(owned.labels, f"{tensor} is to be ignored", foremost=True)
        for tensor, labels in self.elementwise.items():
            if tensor in tensors:
                self.space.freeze(labels, f"{tensor} is to be ignored", foremost=True)
