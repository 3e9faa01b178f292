"""Which channels of a CNN hang together: the `ChannelGraph`.

A *channel* is the smallest unit that can be removed: all the slices of all the tensors that must go
together. A *group* is the set of channels that live in the same tensors, what the literature calls
a layer or a coupled layer. Nothing here knows of data, accuracy or reinforcement learning.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.graph import explain
from pruning_env.graph import surgery as pruning
from pruning_env.graph.tracing.attributes import Attribute
from pruning_env.graph.tracing.grouping import Adapter, ChannelGroup, Grouping, Kind, Slot
from pruning_env.graph.tracing.interpreter import Capture
from pruning_env.graph.tracing.trace import Trace
from pruning_env.graph.trial import failing_groups

Keep = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class _Reading:
    """One way to read the views that split channels, and the groups that it gets wrong."""

    flips: frozenset[str]
    graph: ChannelGraph
    grouping: Grouping
    failing: Mapping[int, str] = field(default_factory=dict)
    rewrite: bool = False
    fixed: frozenset[Kind] = frozenset()

    @property
    def passing(self) -> int:
        """Channels in the groups that it gets right."""
        return self.graph.num_channels - int(self.graph.sizes[list(self.failing)].sum())


_MAX_FLIPS = 16  # each costs a few forward passes; code with more such views repeats one block


class ChannelGraph:
    """The removable channels of a model, and what removing them costs and saves.

    Build one with `ChannelGraph.trace`; it holds names and index arrays, never the model. A *keep
    mask* is a boolean array `(C,)` over all removable channels, group after group; any mask that
    leaves every group at least one channel is valid.

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
        num_channels: C, the length of a keep mask.
        sizes: `(L,)` int64, channels per group.
        group_index: `(C,)` int64, the group of each channel.
    """

    def __init__(self, model: nn.Module, trace: Trace, grouping: Grouping) -> None:
        self._shapes = {name: tuple(t.shape) for name, t in _tensors(model)}
        self.groups: tuple[ChannelGroup, ...] = grouping.groups
        self.slots: tuple[Slot, ...] = grouping.slots
        self.frozen: dict[str, str] = grouping.frozen
        self.widened: tuple[Adapter, ...] = grouping.widened
        self.normalised: tuple[Adapter, ...] = grouping.normalised
        self.attributes: tuple[Attribute, ...] = grouping.attributes
        self.sizes: Counts = np.array([g.size for g in self.groups], np.int64)
        self.group_index = np.repeat(np.arange(len(self.groups)), self.sizes)
        self.num_channels = int(self.sizes.sum())
        self._starts = np.array([g.start for g in self.groups], np.int64)
        self._products = tuple(grouping.products)
        trainable = {name for name, _ in model.named_parameters()}
        self._params = self._cost((name, 1) for name in self._shapes if name in trainable)
        self._macs = self._cost(trace.multiplications, trace.constant_macs, grouping.products)
        self._batch = trace.batch
        self.aliases: dict[str, tuple[str, ...]] = _aliases(model)
        self.train_only: tuple[str, ...] = tuple(trace.uncaptured)

    @classmethod
    def trace(
        cls, model: nn.Module, example_input: Tensor | tuple[Tensor, ...], *, check: bool = True
    ) -> ChannelGraph:
        """Find the removable channels of any model that `torch.export` can capture.

        Args:
            model: The network; neither its weights nor its modes are changed.
            example_input: A tensor or a tuple of tensors that `model` accepts, batch first.
            check: Prune half of everything on trial and compare with the masked model; groups that
                code with written-out sizes gets wrong are frozen. Costs about two forward passes.

        Raises:
            ValueError: When `torch.export` cannot capture the model, or it has no removable
                channel.
        """
        capture = Capture(model, example_input)

        def read(
            flips: Collection[str],
            held: Mapping[int, str] | None = None,
            rewrite: bool = False,
            fixed: Collection[Kind] = (),
        ) -> _Reading:
            trace = capture.trace(flips)
            grouping = Grouping(model, trace, held, rewrite=rewrite, fixed=fixed)
            graph = cls(model, trace, grouping)
            return _Reading(frozenset(flips), graph, grouping, {}, rewrite, frozenset(fixed))

        best = read(())
        if not check:
            return best.graph

        def tried(reading: _Reading) -> _Reading:
            doubtful = reading.grouping.numbered()
            failing = failing_groups(reading.graph, model, example_input, doubtful)
            return replace(reading, failing=failing)

        best = tried(best)
        # Where a view splits channels, either factor may be a number in the code: all views that
        # could be to blame are read the other way round, together and one by one. Of those at one
        # place of a repeated block, which are not seen to fail, one speaks for all.
        failing = best.grouping.splits(best.failing)
        suspects = list(dict.fromkeys(failing + best.grouping.misread()))
        kinds = best.grouping.kinds()
        vain: set[object] = set()  # kinds of views that free nothing when read the other way round
        for flips in [suspects, *([key] for key in suspects[:_MAX_FLIPS] if len(suspects) > 1)]:
            to_blame = not set(failing).isdisjoint(flips)
            kind = kinds[flips[0]] if len(flips) == 1 and not to_blame else None
            if flips and kind not in vain and (best.failing or best.grouping.misread()):
                other = read(best.flips.symmetric_difference(flips))
                frees = other.graph.num_channels > best.graph.num_channels
                if frees or to_blame:  # a trial costs more than a reading
                    before = best
                    best = max(best, tried(other), key=lambda r: (r.passing, -len(r.failing)))
                    if best is not before:
                        vain.clear()
                elif kind is not None:
                    vain.add(kind)
        # Numbers of channels in attributes may be to blame: they follow, where that helps.
        if best.failing:
            other = read(best.flips, rewrite=True)
            if other.graph.attributes:
                other = tried(other)
                for unrelated in other.grouping.followed(other.failing)[:_MAX_FLIPS]:
                    if other.failing:
                        less = tried(
                            read(best.flips, rewrite=True, fixed=other.fixed | {unrelated})
                        )
                        other = max(other, less, key=lambda r: r.passing)
                best = max(best, other, key=lambda r: r.passing)
        if best.failing:
            held = best.grouping.blame(best.failing)
            best = read(best.flips, held, best.rewrite, best.fixed)
        return best.graph

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
        return self._evaluate(self._params, counts, 1)

    def macs_at(self, counts: Counts) -> int | Counts:
        """`macs` of channel counts `(..., L)`."""
        return self._evaluate(self._macs, counts, self._batch)

    # Surgery

    def prune(self, model: nn.Module, keep: Keep) -> nn.Module:
        """A really smaller module: same class and `state_dict` names, sliced copies of the tensors.

        Raises:
            ValueError: When `model` does not have the tensors that were traced, or `keep` is no
                valid mask.
        """
        return pruning.prune(self, model, self._full_groups(keep))

    def mask(self, model: nn.Module, keep: Keep) -> nn.Module:
        """The full-size module whose outputs equal those of the pruned one: the oracle of `prune`.

        Consumers' weights for removed channels are zero. Norms with statistics over removable
        channels take them over the channels kept.
        """
        return pruning.mask(self, model, self._full_groups(keep))

    @cached_property
    def cuts(self) -> pruning.Cuts:
        """What every surgery needs to know of the slots."""
        return pruning.cuts(self)

    # In words

    def explain(self, layer: str) -> str:
        """What hangs together with `layer`, and why it is frozen if it is."""
        return explain.explain(self, layer)

    def table(self, width: int = 120) -> str:
        """All groups with their layers, and all frozen layers with reasons, as text."""
        return explain.table(self, width)

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

    def __repr__(self) -> str:
        return (
            f"ChannelGraph({len(self.groups)} groups, {self.num_channels} channels, "
            f"{len(self.frozen)} frozen layers)"
        )

    def _validated(self, keep: Keep) -> Keep:
        keep = np.asarray(keep)
        if keep.dtype != bool or keep.shape[-1:] != (self.num_channels,):
            raise ValueError(
                f"keep must be a boolean mask of {self.num_channels} channels, "
                f"got {keep.dtype} of shape {keep.shape}"
            )
        return keep

    def _full_groups(self, keep: Keep) -> Keep:
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

    @cached_property
    def _axes(self) -> tuple[dict[tuple[str, int], int], Counts, Counts]:
        """Distinct slot layouts.

        The layout of each (tensor, dim), each layout's constant width, and its indices per channel
        of each group.
        """
        index: dict[tuple[str, int], int] = {}
        seen: dict[bytes, int] = {}
        constant, per_group = [1], [np.zeros(len(self.groups), np.int64)]
        layouts = {(slot.tensor, slot.dim): slot.channels for slot in self.slots}
        layouts |= {
            (f"product {i}", d): channels
            for i, (axes, _) in enumerate(self._products)
            for d, channels in enumerate(axes)
        }
        for place, channels in layouts.items():
            key = channels.tobytes()
            if key not in seen:
                seen[key] = len(constant)
                owned = channels[channels >= 0]
                constant.append(len(channels) - len(owned))
                indices = np.bincount(self.group_index[owned], minlength=len(self.groups))
                per_group.append(indices // self.sizes)
            index[place] = seen[key]
        return index, np.array(constant, np.int64), np.stack(per_group).astype(np.int64)

    def _cost(
        self,
        terms: Iterable[tuple[str, int]],
        constant: int = 0,
        products: Sequence[tuple[tuple[NDArray[np.int64], ...], int]] = (),
    ) -> tuple[Counts, Counts]:
        """Sum over tensors of factor x elements kept, as (factors, axes) of products of widths."""
        index, _, _ = self._axes
        factors: dict[tuple[int, ...], int] = {(0,): constant}
        for i, (lines, rows) in enumerate(products):
            key: tuple[int, ...] = tuple(
                sorted(index[f"product {i}", d] for d in range(len(lines)))
            )
            factors[key] = factors.get(key, 0) + rows
        for name, factor in terms:
            axes = []
            for dim, size in enumerate(self._shapes[name]):
                axis = index.get((name, dim))
                if axis is None:
                    factor *= size
                else:
                    axes.append(axis)
            key = tuple(sorted(axes)) or (0,)
            factors[key] = factors.get(key, 0) + factor
        depth = max(map(len, factors))
        padded = [key + (0,) * (depth - len(key)) for key in factors]  # axis 0 has width 1
        return np.array(list(factors.values()), np.int64), np.array(padded, np.int64)

    def _evaluate(self, cost: tuple[Counts, Counts], counts: Counts, divisor: int) -> int | Counts:
        counts = np.asarray(counts, np.int64)
        if counts.shape[-1:] != (len(self.groups),):
            raise ValueError(
                f"counts must have {len(self.groups)} entries, got shape {counts.shape}"
            )
        _, constant, per_group = self._axes
        widths = constant + counts @ per_group.T
        factors, axes = cost
        total = (widths[..., axes].prod(-1) @ factors) // divisor
        return int(total) if total.ndim == 0 else total


def _aliases(model: nn.Module) -> dict[str, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for source in (model.named_parameters, model.named_buffers):
        for name, tensor in source(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    return {first: tuple(rest) for first, *rest in names.values() if rest}


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, each tensor once."""
    return [*model.named_parameters(), *model.named_buffers()]
