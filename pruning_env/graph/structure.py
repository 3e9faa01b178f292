"""The structure of a network as far as pruning goes: its groups of channels, and what they cost.

Plain arrays and names, with what follows from them alone: keep masks, rankings, numbers of
parameters and multiply-accumulates. Holds no model and cuts none, and imports neither torch's
tracing nor what finds the groups.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pruning_env.graph.costs import Cost, Widths

__all__ = [
    "Adapter",
    "Attribute",
    "ChannelGroup",
    "ChannelStructure",
    "Counts",
    "Cuts",
    "Facts",
    "Indices",
    "Keep",
    "Slot",
]

Keep = NDArray[np.bool_]
Counts = NDArray[np.int64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class ChannelGroup:
    """Channels that live in the same tensors: one entry of the action, one row of the observation.

    Attributes:
        name: The first layer that produces the channels; of its second group, and on, with their
            number: `layer#2`.
        size: Number of channels.
        start: Its channels are `keep[start : start + size]`.
        layers: Modules that lose outputs or per-channel parameters with a channel.
        consumers: Modules that lose inputs.
        kernel: Largest spatial extent of the first producer's kernel (1 for linear layers).
        stride: Its largest stride.
        depth: Position of the first producer in execution order, counted over all producers.
        summed: Whether the model adds up what several layers make of the channels, as it does where
            residual blocks meet.
    """

    name: str
    size: int
    start: int
    layers: tuple[str, ...]
    consumers: tuple[str, ...]
    kernel: int
    stride: int
    depth: int
    summed: bool = False


@dataclass(frozen=True)
class Slot:
    """One dimension of one tensor that shrinks when channels go.

    Attributes:
        tensor: Name in the model's `state_dict`.
        dim: Dimension of that tensor.
        role: "out" (rows or bias of the layer that produces the channels), "channelwise" (norm and
            depthwise parameters and statistics) or "in" (columns of a layer that consumes them).
        channels: `(tensor.shape[dim],)` int64, the channel that owns each index; -1 is never
            removed.
        consumes: Whether a channel is out of the network where the tensor is zero along `dim`. True
            of "in", which is multiplied with the channels; of a weight that is tied to both ends;
            and of the parameters that make what is summed in a product of activations, as query
            and key are, which no weight reads.
    """

    tensor: str
    dim: int
    role: str
    channels: Indices
    consumes: bool


@dataclass(frozen=True)
class Adapter:
    """A module that code or statistics, not the shape of a tensor, tie to its channels.

    Attributes:
        module: Its name.
        dim: Channel dimension of its input and output.
        entry: `(C_in,)` int64, channels at its input; -1 is never removed.
        exit: `(C_out,)` int64, channels at its output.
    """

    module: str
    dim: int
    entry: Indices
    exit: Indices


@dataclass(frozen=True)
class Attribute:
    """An integer of a module, or one in a tuple or list of it, that is a number of channels.

    Attributes:
        module: Name of the module.
        name: Name of the attribute.
        index: Place in the tuple or list; None for an integer by itself.
        channels: The channels that it counts; -1 is never removed.
    """

    module: str
    name: str
    index: int | None
    channels: Indices


@dataclass(frozen=True)
class Facts:
    """What tracing finds out about a model, and all that a structure is made of.

    Attributes:
        groups, slots, frozen, widened, normalised, attributes, aliases, train_only, caches: As in
            `ChannelStructure`.
        shapes: Of the model's parameters and buffers by `state_dict` name, each tensor once.
        trainable: Names of those that are parameters.
        multiplications: `(weight name, rows)` per convolution or linear call: its
            multiply-accumulates are rows times the weight's number of elements.
        products: `(axes, rows)` of matrix products without a weight: rows multiply-accumulates for
            every combination of the channels along the axes; -1 is never removed.
        constant_macs: Multiply-accumulates of such products that no channel changes.
        batch: Images that the multiply-accumulates are of.
    """

    groups: tuple[ChannelGroup, ...]
    slots: tuple[Slot, ...]
    frozen: dict[str, str]
    widened: tuple[Adapter, ...]
    normalised: tuple[Adapter, ...]
    attributes: tuple[Attribute, ...]
    shapes: dict[str, tuple[int, ...]]
    trainable: tuple[str, ...]
    aliases: dict[str, tuple[str, ...]]
    train_only: tuple[str, ...]
    caches: tuple[tuple[str, str], ...]
    multiplications: tuple[tuple[str, int], ...]
    products: tuple[tuple[tuple[Indices, ...], int], ...]
    constant_macs: int
    batch: int


@dataclass(frozen=True)
class Cuts:
    """What of a graph's slots does not change from one mask to the next.

    Attributes:
        channels: the distinct channel arrays of all slots.
        tensors: by tensor, (dimension, position in `channels`) of each of its slots.
        owners: by tensor, the modules that hold it.
        attributes: by module and attribute, the channels that its number is that of, or by index
            those of the numbers in it.
    """

    channels: tuple[NDArray[np.int64], ...]
    tensors: dict[str, tuple[tuple[int, int], ...]]
    owners: dict[str, tuple[str, ...]]
    attributes: dict[tuple[str, str], list[tuple[int | None, Indices]]]


class ChannelStructure:
    """The removable channels of a network, and what removing them saves.

    A *keep mask* is a boolean array `(C,)` over all removable channels, group after group; any mask
    that leaves every group at least one channel is valid.

    Args:
        facts: What is known of the network.

    Attributes:
        groups: The groups, in execution order.
        slots: Every tensor dimension that shrinks.
        frozen: `{layer name: reason}` for layers some or all of whose outputs cannot be removed.
        widened: Parameter-free modules that run at full width between a scatter and a gather.
        normalised: Norms and gates whose statistics run over removable channels, or that hold their
            number without a tensor to show it.
        attributes: Numbers of channels in attributes of modules, which follow.
        aliases: Other names of tensors that several modules share, by the first.
        train_only: Parameters that only train mode uses, where that mode could not be captured.
        caches: `(module, attribute)` of what forward keeps from one call to the next: empty in
            pruned and masked models, which fill it anew.
        num_channels: C, the length of a keep mask.
        sizes: `(L,)` int64, channels per group.
        group_index: `(C,)` int64, the group of each channel.
        widths: Lengths of the tensors' dimensions at any numbers of channels.
    """

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.groups = facts.groups
        self.slots = facts.slots
        self.frozen = facts.frozen
        self.widened = facts.widened
        self.normalised = facts.normalised
        self.attributes = facts.attributes
        self.aliases = facts.aliases
        self.train_only = facts.train_only
        self.caches = facts.caches
        self.sizes: Counts = np.array([g.size for g in self.groups], np.int64)
        self.group_index = np.repeat(np.arange(len(self.groups)), self.sizes)
        self.num_channels = int(self.sizes.sum())
        self._shapes = facts.shapes
        self._starts = np.array([g.start for g in self.groups], np.int64)
        lines = {(slot.tensor, slot.dim): slot.channels for slot in facts.slots}
        self.widths = widths = Widths(self.sizes, facts.shapes, lines, facts.products)
        self._params = Cost(widths, ((name, 1) for name in facts.trainable))
        self._macs = Cost(
            widths,
            facts.multiplications,
            products=True,
            constant=facts.constant_macs,
            divisor=facts.batch,
        )

    @cached_property
    def cuts(self) -> Cuts:
        """What every surgery needs to know of the slots."""
        places: dict[bytes, int] = {}
        channels: list[NDArray[np.int64]] = []
        tensors: dict[str, tuple[tuple[int, int], ...]] = {}
        for slot in self.slots:
            place = places.setdefault(slot.channels.tobytes(), len(channels))
            if place == len(channels):
                channels.append(slot.channels)
            tensors[slot.tensor] = (*tensors.get(slot.tensor, ()), (slot.dim, place))
        owners = {
            name: tuple(_owner(alias) for alias in (name, *self.aliases.get(name, ())))
            for name in tensors
        }
        attributes: dict[tuple[str, str], list[tuple[int | None, Indices]]] = {}
        for attribute in self.attributes:
            numbers = attributes.setdefault((attribute.module, attribute.name), [])
            numbers.append((attribute.index, attribute.channels))
        return Cuts(tuple(channels), tensors, owners, attributes)

    # Keep masks

    def full(self) -> Keep:
        """The mask that keeps everything, `(C,)`."""
        return np.ones(self.num_channels, bool)

    def random_keep(self, ratio: float, rng: np.random.Generator) -> Keep:
        """A mask that keeps each channel with probability `ratio`, and at least one per group."""
        if not 0 <= ratio <= 1:
            raise ValueError(f"ratio must lie in [0, 1], got {ratio}")
        draws = rng.random(self.num_channels)
        keep = draws < ratio
        if self.num_channels:
            lowest = np.minimum.reduceat(draws, self._starts)
            keep |= draws == lowest[self.group_index]
        return keep

    def counts(self, keep: Keep) -> Counts:
        """Channels kept per group, `(..., L)`, of masks `(..., C)`."""
        keep = self._validated(keep)
        if not self.groups:
            return np.zeros((*keep.shape[:-1], 0), np.int64)
        return np.add.reduceat(keep.astype(np.int64), self._starts, axis=-1)

    def rank(self, scores: NDArray[np.floating]) -> Counts:
        """Place of each channel in its group by falling score, `(C,)`; 0 is the last to go.

        Equal scores are ranked by index.
        """
        scores = np.asarray(scores, np.float64)
        if scores.shape != (self.num_channels,) or not np.isfinite(scores).all():
            raise ValueError(
                f"scores must be {self.num_channels} finite numbers, got shape {scores.shape}"
            )
        order = np.lexsort((np.arange(self.num_channels), -scores, self.group_index))
        rank = np.empty(self.num_channels, np.int64)
        rank[order] = np.arange(self.num_channels) - np.repeat(self._starts, self.sizes)
        return rank

    def keep_top(self, rank: Counts, counts: Counts) -> Keep:
        """The mask that keeps the first `counts` (`(L,)`) channels of every group's ranking."""
        counts = np.asarray(counts)
        if counts.shape != self.sizes.shape or (counts < 1).any() or (counts > self.sizes).any():
            raise ValueError(
                f"counts must lie in [1, size] for each of {len(self.groups)} groups, got {counts}"
            )
        return rank < counts[self.group_index]

    # Cost

    def params(self, keep: Keep) -> int | Counts:
        """Number of parameters under a mask `(C,)`, or of each mask in a batch `(..., C)`."""
        return self.params_at(self.counts(keep))

    def macs(self, keep: Keep) -> int | Counts:
        """Multiply-accumulates of convolutions, linear layers and matrix products.

        Per image and without bias, for a mask `(C,)` or each mask of a batch `(..., C)`.
        """
        return self.macs_at(self.counts(keep))

    def params_at(self, counts: Counts) -> int | Counts:
        """`params` of channel counts `(..., L)`."""
        return self._params.at(counts)

    def macs_at(self, counts: Counts) -> int | Counts:
        """`macs` of channel counts `(..., L)`."""
        return self._macs.at(counts)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the structure: equal for two models exactly when masks mean the same for both."""
        digest = hashlib.sha256()
        for name, shape in sorted(self._shapes.items()):
            digest.update(f"{name}{shape}".encode())
        for slot in self.slots:
            digest.update(
                f"{slot.tensor}:{slot.dim}:{slot.role}".encode() + slot.channels.tobytes()
            )
        return digest.hexdigest()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the traced model's tensors by `state_dict` name."""
        return dict(self._shapes)

    def _validated(self, keep: Keep) -> Keep:
        keep = np.asarray(keep)
        if keep.dtype != bool or keep.shape[-1:] != (self.num_channels,):
            raise ValueError(
                f"keep must be a boolean mask of {self.num_channels} channels, "
                f"got {keep.dtype} of shape {keep.shape}"
            )
        return keep

    def valid(self, keep: Keep) -> Keep:
        """`keep` itself, a mask `(C,)` that leaves every group a channel.

        Raises:
            ValueError: When it is none.
        """
        keep = self._validated(keep)
        if keep.ndim != 1:
            raise ValueError(f"keep must be one mask, got shape {keep.shape}")
        empty = np.flatnonzero(self.counts(keep) == 0)
        if empty.size:
            names = ", ".join(self.groups[g].name for g in empty[:5])
            raise ValueError(
                f"keep must leave every group at least one channel; nothing is left of {names}"
            )
        return keep


def _owner(tensor: str) -> str:
    """The module that a tensor is part of; of a parametrised one, the layer and not its parts."""
    return tensor.rpartition(".")[0].partition(".parametrizations.")[0]
