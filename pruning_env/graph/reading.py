"""Finds the reading of a model that pruning gets right, and what it says of the model.

Interpreting a model on labels leaves open what only running it shows: which factor of a view is a
number in the code, and what numbers are written into `forward`. Readings are tried until one is
right, and what none gets right is frozen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from torch import Tensor, nn

from pruning_env.graph.comparison import in_training, place_of
from pruning_env.graph.example import Example, caches
from pruning_env.graph.structure import ChannelStructure, Facts
from pruning_env.graph.tracing.attributes import Kind, tie_widths
from pruning_env.graph.tracing.grouping import Grouping
from pruning_env.graph.tracing.interpreter import Capture
from pruning_env.graph.tracing.trace import Trace
from pruning_env.graph.trial import failing_groups, first_fault
from pruning_env.graph.untouched import untouched

__all__ = ["read_model"]


@dataclass(frozen=True)
class _Reading:
    """One way to read a model, and the groups that it gets wrong.

    Attributes:
        graph: Its groups.
        grouping: How they were found.
        flips: Keys of `Trace.splits` that are read the other way round.
        follow: Whether numbers of channels in attributes follow.
        ties: Classes of modules in which equal numbers of channels stay equal.
        fixed: Kinds of attributes that do not follow.
        failing: How each wrong group fails.
    """

    graph: ChannelStructure
    grouping: Grouping
    flips: frozenset[str]
    follow: bool
    ties: frozenset[type]
    fixed: frozenset[Kind]
    failing: Mapping[int, str] = field(default_factory=dict)

    @property
    def worth(self) -> tuple[int, int]:
        """Parameters that can go, and channels, of the groups that it gets right."""
        sizes, wrong = self.graph.sizes, list(self.failing)
        least = np.ones_like(sizes)
        least[wrong] = sizes[wrong]
        gone = int(self.graph.params_at(sizes)) - int(self.graph.params_at(least))
        return gone, self.graph.num_channels - int(sizes[wrong].sum())


_MAX_KINDS = 16  # each costs a few forward passes


def read_model(
    model: nn.Module, example: Example, ignored: Collection[str], *, check: bool
) -> Facts:
    """What tracing and trying out say of a model, which is left as it was.

    Args:
        model: The network.
        example: What it accepts.
        ignored: Tensors of layers that are to lose no outputs, by `state_dict` name.
        check: Whether to prune on trial; otherwise the first reading is taken.

    Raises:
        ValueError: When `model` does not accept the example, or `torch.export` cannot capture it.
    """
    with untouched(model):
        kept = caches(model, example)
        capture = Capture(model, example, kept)
        return _read(model, example, capture, kept, ignored, check)


class _Reader:
    """Reads a model in one way or another, and tries what it read.

    Args:
        model, example, capture, kept, ignored: As in `read_model`.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Example,
        capture: Capture,
        kept: tuple[tuple[str, str], ...],
        ignored: Collection[str],
    ) -> None:
        self._model, self._example, self._capture = model, example, capture
        self._kept, self._ignored = kept, ignored

    def read(
        self,
        flips: Collection[str] = (),
        follow: bool = False,
        ties: Collection[type] = (),
        fixed: Collection[Kind] = (),
        held: Mapping[int, str] | None = None,
    ) -> _Reading:
        """One reading, not tried; `held` are labels to freeze with a reason."""
        trace = self._capture.trace(flips)
        trace.ignore(self._ignored)
        tie_widths(self._model, trace, ties)
        grouping = Grouping(self._model, trace, held, follow=follow, fixed=fixed)
        graph = ChannelStructure(_facts(self._model, trace, grouping, self._kept))
        chosen = frozenset(flips), follow, frozenset(ties), frozenset(fixed)
        return _Reading(graph, grouping, *chosen)

    def fault(self, reading: _Reading, among: Iterable[int] | None = None) -> str | None:
        """How groups first fail when they are all pruned."""
        parts = reading.grouping.parts()
        return first_fault(reading.graph, self._model, self._example, parts, among)

    def tried(self, reading: _Reading) -> _Reading:
        """A reading with the groups that fail."""
        doubtful, parts = reading.grouping.numbered(), reading.grouping.parts()
        failing = failing_groups(reading.graph, self._model, self._example, doubtful, parts)
        return replace(reading, failing=failing)

    def least(self, flips: Collection[str] = ()) -> tuple[_Reading, bool]:
        """The reading with these flips that takes least to be right, and whether it is.

        At first nothing follows; then numbers in attributes do; then equal numbers stay equal in
        every module whose code stops with an error.
        """
        reading = self.read(flips)
        fault = self.fault(reading)
        if fault is None:
            return reading, True
        # What only train mode does may couple channels, not only hold them: its graph shows it.
        if in_training(fault) and self._capture.add_training():
            return self.least(flips)
        reading = self.read(flips, follow=True)
        if reading.graph.attributes:
            fault = self.fault(reading)
        while fault is not None:
            tied = self._tied(reading, fault)
            if tied is None:
                return reading, False
            reading = tied
            fault = self.fault(reading)
        return reading, True

    def _tied(self, reading: _Reading, fault: str) -> _Reading | None:
        """Equal numbers stay equal where this error arose, too; None if that changes nothing."""
        place = place_of(fault)
        if place is None:
            return None
        kind = type(self._model.get_submodule(place))
        if kind in reading.ties:
            return None
        tied = self.read(reading.flips, True, reading.ties | {kind}, reading.fixed)
        return None if np.array_equal(tied.graph.sizes, reading.graph.sizes) else tied

    def best(self, reading: _Reading) -> _Reading:
        """What tells the groups apart that a reading gets wrong, without or with its ties."""
        found = self.tried(reading)
        if reading.ties and found.failing:
            found = max(found, self.best(self.read(reading.flips, True)), key=lambda r: r.worth)
        for unrelated in found.grouping.followed(found.failing)[:_MAX_KINDS]:
            less = self.read(found.flips, True, found.ties, found.fixed | {unrelated})
            concerned = found.grouping.followed_by(unrelated, found.failing)
            if self.fault(less, concerned) is None:
                found = self.tried(less)
        return found


def _read(
    model: nn.Module,
    example: Example,
    capture: Capture,
    kept: tuple[tuple[str, str], ...],
    ignored: Collection[str],
    check: bool,
) -> Facts:
    reader = _Reader(model, example, capture, kept, ignored)
    if not check:
        return reader.read().graph.facts
    best, right = reader.least()
    if not right:
        best = reader.best(best)
    # Where a view splits channels, either factor may be a number in the code: all views that
    # could be to blame are read the other way round, together, and then those at one place of a
    # repeated block.
    failing = best.grouping.splits(best.failing)
    suspects = list(dict.fromkeys(failing + best.grouping.misread()))
    alike: dict[object, list[str]] = {}
    for key, kind in best.grouping.kinds().items():
        if key in suspects:
            alike.setdefault(kind, []).append(key)
    several = list(alike.values())[:_MAX_KINDS] if len(alike) > 1 else []
    for flips in [suspects, *several]:
        if not flips or not (best.failing or best.grouping.misread()):
            break
        other, right = reader.least(best.flips.symmetric_difference(flips))
        if not right and (other.worth > best.worth):
            other = reader.best(other)
        if right or other.failing:
            best = max(best, other, key=lambda r: r.worth)
    if best.failing:
        held = best.grouping.blame(best.failing)
        best = reader.read(best.flips, best.follow, best.ties, best.fixed, held)
    return best.graph.facts


def _facts(
    model: nn.Module, trace: Trace, grouping: Grouping, caches: tuple[tuple[str, str], ...]
) -> Facts:
    return Facts(
        groups=grouping.groups,
        slots=grouping.slots,
        frozen=grouping.frozen,
        widened=grouping.widened,
        normalised=grouping.normalised,
        attributes=grouping.attributes,
        shapes={name: tuple(tensor.shape) for name, tensor in _tensors(model)},
        trainable=tuple(name for name, _ in model.named_parameters()),
        aliases=_aliases(model),
        train_only=tuple(trace.uncaptured),
        caches=caches,
        multiplications=tuple(trace.multiplications),
        products=tuple(grouping.products),
        constant_macs=trace.constant_macs,
        batch=trace.batch,
    )


def _aliases(model: nn.Module) -> dict[str, tuple[str, ...]]:
    names: dict[int, list[str]] = {}
    for source in (model.named_parameters, model.named_buffers):
        for name, tensor in source(remove_duplicate=False):
            names.setdefault(id(tensor), []).append(name)
    return {first: tuple(rest) for first, *rest in names.values() if rest}


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers by name, each tensor once."""
    return [*model.named_parameters(), *model.named_buffers()]
