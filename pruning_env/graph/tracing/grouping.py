"""Turn the labels of a trace into groups of channels: who lives where, what is frozen and why."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.graph.structure import Adapter, ChannelGroup, Indices, Slot
from pruning_env.graph.tracing.attributes import Kind, attributes, kind_of
from pruning_env.graph.tracing.labels import FIXED
from pruning_env.graph.tracing.trace import Adapter as Labelled
from pruning_env.graph.tracing.trace import Trace


class Grouping:
    """The groups of a trace.

    Args:
        model: The traced module.
        trace: Its trace.
        held: Labels to freeze besides those that the trace froze, with the reason.
        follow: Whether attributes of modules that equal a number of channels are to follow it.
        fixed: Kinds of attributes that do not follow.

    Attributes:
        groups, slots, frozen, widened, normalised, attributes: As in `ChannelGraph`.
        products: `(axes, rows)` of products without a stored weight: rows multiply-accumulates per
            choice of one channel from each of the axes; -1 is never removed.
    """

    def __init__(
        self,
        model: nn.Module,
        trace: Trace,
        held: Mapping[int, str] | None = None,
        *,
        follow: bool = False,
        fixed: Collection[Kind] = (),
    ) -> None:
        self._model, self._trace = model, trace
        self._component, self._reasons = trace.space.components()
        self._parameters = {name for name, _ in model.named_parameters()}
        silent = [labels.numpy() for labels in trace.silenced]
        self._silent = self._component[np.concatenate([np.zeros(0, np.int64), *silent])]
        self._silent = self._silent[self._silent != self._component[FIXED]]
        layout = self._layout()
        for label, reason in (held or {}).items():
            self._hold(self._component[label], reason)
        producers = {key: roots for key, (role, roots) in layout.items() if role == "out"}
        seen = np.concatenate([np.zeros(0, np.int64), *producers.values()])
        made, first = np.unique(seen, return_index=True)
        produced = np.zeros(int(self._component.max()) + 1, bool)
        produced[made] = True
        for _, roots in layout.values():
            self._hold(roots[~produced[roots]], "no layer produces it")
        free = produced
        free[list(self._reasons)] = False
        free = free[made]
        made, first = made[free], first[free]

        signature = self._signatures(layout)[made]
        order = np.argsort(first)
        made, signature = made[order], signature[order]
        kinds, leader, size = np.unique(signature, return_index=True, return_counts=True)
        self._hold(
            made[np.isin(signature, kinds[size == 1])],
            "coupling leaves a single channel, which has to stay",
        )
        rank = {
            kind: place
            for place, kind in enumerate(kinds[np.argsort(leader)])
            if size[kinds == kind] > 1
        }
        place = np.array([rank.get(kind, -1) for kind in signature], np.int64)
        order = np.argsort(place, kind="stable")
        order = order[place[order] >= 0]
        made, place = made[order], place[order]

        self._channel = np.full(int(self._component.max()) + 1, -1, np.int64)
        self._channel[made] = np.arange(len(made))
        _, any_label = np.unique(self._component, return_index=True)
        self._channel_labels: Indices = any_label[made].astype(np.int64)
        self.slots = tuple(
            Slot(
                *(tensor, dim, role, self._channel[roots]),
                self._consumes(tensor, dim) or self._silences(tensor, role, roots),
            )
            for (tensor, dim), (role, roots) in layout.items()
            if (self._channel[roots] >= 0).any()
        )
        self.groups = self._groups(place)
        self.widened = self._adapters(trace.islands)
        self.normalised = self._adapters(trace.statistics)
        found = attributes(model, trace, self._channels_of) if follow else ()
        self.attributes = tuple(a for a in found if kind_of(a, model) not in fixed)
        self.frozen = self._frozen(layout)
        self.products = [
            (tuple(map(self._channels_of, axes)), rows) for axes, rows in trace.products
        ]

    def blame(self, faults: Mapping[int, str]) -> dict[int, str]:
        """A label of every channel of the groups at fault, and what may hold its number in code.

        Args:
            faults: How each group fails when it is pruned on trial.
        """
        held: dict[int, str] = {}
        for index, fault in faults.items():
            group = self.groups[index]
            here = slice(group.start, group.start + group.size)
            operators = self._numbering(group)
            among = f", maybe at {', '.join(operators[:3])}" if operators else ""
            reason = f"its code depends on the number of channels{among} ({fault})"
            held |= dict.fromkeys(self._channel_labels[here].tolist(), reason)
        return held

    def numbered(self) -> Indices:
        """Groups whose numbers of channels were given to operators, and may be written in code."""
        labels = [labels for _, labels in self._trace.numbered]
        return self._groups_of(torch.cat(labels) if labels else torch.zeros(0, dtype=torch.int64))

    def parts(self) -> list[list[Indices]]:
        """Groups in each part of channels that are cut unevenly, by cut."""
        return [[self._groups_of(part) for part in parts] for parts in self._trace.parts]

    def splits(self, groups: Iterable[int]) -> list[str]:
        """Keys of the views that split channels of `groups`."""
        starts = [(self.groups[g].start, self.groups[g].size) for g in groups]
        return self._splitting([self._channel_labels[at : at + size] for at, size in starts])

    def misread(self) -> list[str]:
        """Keys of the views that split channels which operators then did not find in their place.

        They may have been read the wrong way round.
        """
        return self._splitting([labels.numpy() for labels in self._trace.misplaced])

    def _splitting(self, labels: list[Indices]) -> list[str]:
        touched = np.zeros(int(self._component.max()) + 1, bool)
        touched[self._component[np.concatenate([np.zeros(0, np.int64), *labels])]] = True
        touched[self._component[FIXED]] = False
        return [
            key
            for key, split in self._trace.splits.items()
            if touched[self._component[split.labels.numpy()]].any()
        ]

    def kinds(self) -> dict[str, tuple[str, int, bool]]:
        """A kind for each view that splits channels, the same at one place of a repeated block.

        It is the module's name without numbers, the place of the view among those of that module,
        and which factor was taken for the one that shrinks.
        """
        seen: dict[str, int] = {}
        kinds = {}
        for key, split in self._trace.splits.items():
            seen[split.where] = seen.get(split.where, 0) + 1
            kinds[key] = (_NUMBER.sub("", split.where), seen[split.where], split.outer)
        return kinds

    def followed(self, groups: Iterable[int]) -> list[Kind]:
        """Kinds of attributes that follow numbers of channels of `groups`."""
        kinds = {kind_of(attribute, self._model): None for attribute in self.attributes}
        return [kind for kind in kinds if self.followed_by(kind, groups)]

    def followed_by(self, kind: Kind, groups: Iterable[int]) -> list[int]:
        """Those of `groups` whose numbers of channels attributes of one kind follow."""
        lines = [a.channels for a in self.attributes if kind_of(a, self._model) == kind]
        numbered = {int(g) for line in lines for g in self._groups_at(line)}
        return [group for group in groups if group in numbered]

    def _groups_of(self, labels: Tensor) -> Indices:
        return self._groups_at(self._channels_of(labels))

    def _groups_at(self, channels: Indices) -> Indices:
        ends = np.array([g.start + g.size for g in self.groups], np.int64)
        return np.unique(np.searchsorted(ends, channels[channels >= 0], side="right"))

    def _channels_of(self, labels: Tensor) -> Indices:
        return self._channel[self._component[labels.numpy()]]

    def _numbering(self, group: ChannelGroup) -> list[str]:
        """Operators that were given the number of channels of `group`."""
        names: dict[str, None] = {}
        for name, labels in self._trace.numbered:
            channels = self._channel[self._component[labels.numpy()]]
            if ((channels >= group.start) & (channels < group.start + group.size)).any():
                names[name] = None
        return list(names)

    def _consumes(self, tensor: str, dim: int) -> bool:
        owned = self._trace.owned.get((tensor, dim))
        return owned is not None and owned.consumes

    def _silences(self, tensor: str, role: str, roots: Indices) -> bool:
        """Whether masks set parts of a parameter to zero for a sum over what it makes."""
        return (
            role != "in" and tensor in self._parameters and bool(np.isin(roots, self._silent).any())
        )

    def _hold(self, roots: Indices, reason: str) -> None:
        for root in np.unique(roots).tolist():
            self._reasons.setdefault(root, reason)

    def _layout(self) -> dict[tuple[str, int], tuple[str, Indices]]:
        """Role and component of every index of every owned (tensor, dim), in execution order."""
        trace, component = self._trace, self._component
        layout = {
            key: (owned.role, component[owned.labels.numpy()]) for key, owned in trace.owned.items()
        }
        for name, labels in trace.elementwise.items():
            grid = component[labels.numpy()]
            dims = [d for d in range(grid.ndim) if (grid != grid.take([0], d)).any()]
            if not dims:  # all of it hangs together
                dims = [d for d in range(grid.ndim) if grid.shape[d] > 1][:1]
            owners = [roots for (tensor, _), (_, roots) in layout.items() if tensor == name]
            if len(dims) == 1 and not owners:
                line = np.moveaxis(grid, dims[0], 0).reshape(grid.shape[dims[0]], -1)[:, 0]
                layout[name, dims[0]] = ("channelwise", line)
            elif owners or grid.size > 1 or component[FIXED] != grid.flat[0]:
                mixed = (
                    f"{name} is used element by element in several dimensions, or as a weight too"
                )
                for roots in (grid, *owners):
                    self._hold(roots, mixed)
        for (tensor, _), (_, roots) in layout.items():
            if tensor in trace.pinned:
                self._hold(roots, trace.pinned[tensor])
        return layout

    def _signatures(self, layout: dict[tuple[str, int], tuple[str, Indices]]) -> NDArray[np.uint64]:
        """A hash per component of the places it lives in, and how often it does.

        A part of channels that are cut unevenly counts as a place: its number is one of its own.
        Sums of one random 64-bit number per place: equal for components with the same places, and
        different otherwise but with probability 2^-64 per pair.
        """
        rng = np.random.default_rng(0)
        total = np.zeros(int(self._component.max()) + 1, np.uint64)
        for _, roots in layout.values():
            number = rng.integers(1 << 63, dtype=np.uint64)
            # Before NumPy 2 an unsigned number and one of Python's make a floating one.
            np.add.at(total, roots, number * np.uint64(2) + np.uint64(1))
        for parts in self._trace.parts:
            for part in parts:
                number = rng.integers(1 << 63, dtype=np.uint64)
                roots = np.unique(self._component[part.numpy()])
                total[roots] += number * np.uint64(2) + np.uint64(1)
        return total

    def _groups(self, place: Indices) -> tuple[ChannelGroup, ...]:
        _, start, size = np.unique(place, return_index=True, return_counts=True)
        members: list[dict[str, list[str]]] = [
            {"out": [], "channelwise": [], "in": []} for _ in start
        ]
        depth: dict[str, int] = {}
        weights: dict[str, str] = {}
        for slot in self.slots:
            layer = _layer(slot.tensor)
            if slot.role == "out":
                depth.setdefault(layer, len(depth))
                weights.setdefault(layer, slot.tensor)
            owned = slot.channels[slot.channels >= 0]
            for group in np.unique(np.searchsorted(start, owned, side="right") - 1).tolist():
                members[group][slot.role].append(layer)
                if slot.role != "in" and self._consumes(slot.tensor, slot.dim):
                    members[group]["in"].append(layer)
        groups, names = [], dict[str, int]()
        sums = self._channels_of(torch.cat([torch.zeros(0, dtype=torch.int64), *self._trace.sums]))
        for begin, count, member in zip(start.tolist(), size.tolist(), members, strict=True):
            name = member["out"][0]
            added = ((sums >= begin) & (sums < begin + count)).any()
            names[name] = names.get(name, 0) + 1
            kernel, stride = self._trace.geometry.get(weights[name], (1, 1))
            groups.append(
                ChannelGroup(
                    name=f"{name}#{names[name]}" if names[name] > 1 else name,
                    size=count,
                    start=begin,
                    layers=tuple(dict.fromkeys(member["out"] + member["channelwise"])),
                    consumers=tuple(dict.fromkeys(member["in"])),
                    kernel=kernel,
                    stride=stride,
                    depth=depth[name],
                    summed=bool(added) and len(set(member["out"])) > 1,
                )
            )
        return tuple(groups)

    def _adapters(self, ends: Mapping[str, Labelled]) -> tuple[Adapter, ...]:
        adapters = []
        for module, labels in ends.items():
            entry, exit = (
                self._channel[self._component[end.numpy()]] for end in (labels.entry, labels.exit)
            )
            if (entry >= 0).any() or (exit >= 0).any():
                adapters.append(Adapter(module, labels.dim, entry, exit))
        return tuple(adapters)

    def _frozen(self, layout: dict[tuple[str, int], tuple[str, Indices]]) -> dict[str, str]:
        """Why the outputs of a layer, or how many of them, cannot be removed."""
        frozen: dict[str, str] = {}
        for (tensor, _), (role, roots) in layout.items():
            layer = _layer(tensor)
            stay = roots[self._channel[roots] < 0]
            if role == "out" and stay.size and layer not in frozen:
                reason = self._reasons[int(stay[0])]
                some = f"{stay.size} of {roots.size} channels: " if stay.size < roots.size else ""
                frozen[layer] = some + reason
        placed = {tensor for tensor, _ in layout}
        for name, parameter in self._model.named_parameters():
            if parameter.dim() > 1 and name not in placed:
                why = self._trace.pinned.get(name) or self._trace.uncaptured.get(name)
                if why is None and name in self._trace.elementwise:
                    first = int(self._trace.elementwise[name].flatten()[0])
                    why = self._reasons.get(int(self._component[first]))
                frozen.setdefault(_layer(name), why or "not used by forward")
        return frozen


def _layer(tensor: str) -> str:
    """The module that a tensor makes a layer of; the tensor itself where a module holds several."""
    layer, computed, _ = tensor.partition(".parametrizations.")
    module, _, name = tensor.rpartition(".")
    plain = name in _PLAIN or _RECURRENT.fullmatch(name)
    return layer if computed else module if module and plain else tensor


_NUMBER = re.compile(r"\d+")
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)(_l\d+(_reverse)?)?")
_PLAIN = (
    *("weight", "bias", "running_mean", "running_var"),
    # what hooks compute a weight from
    *("weight_v", "weight_g", "weight_orig", "weight_mask", "weight_u"),
)
