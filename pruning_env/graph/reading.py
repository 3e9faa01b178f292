"""Finds the reading of a model that pruning gets right, and what it says of the model.

Interpreting a model on labels leaves open what only running it shows: which factor of a view is a
number in the code, and what numbers are written into `forward`. Readings are tried until one is
right, and what none gets right is frozen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from pruning_env.graph.comparison import in_training
from pruning_env.graph.example import Example, caches
from pruning_env.graph.structure import ChannelStructure, Facts
from pruning_env.graph.tracing.attributes import Kind
from pruning_env.graph.tracing.grouping import Grouping
from pruning_env.graph.tracing.interpreter import Capture
from pruning_env.graph.tracing.trace import Trace
from pruning_env.graph.trial import failing_groups
from pruning_env.graph.untouched import untouched

__all__ = ["read_model"]


@dataclass(frozen=True)
class _Reading:
    """One way to read the views that split channels, and the groups that it gets wrong."""

    flips: frozenset[str]
    graph: ChannelStructure
    grouping: Grouping
    failing: Mapping[int, str] = field(default_factory=dict)
    rewrite: bool = False
    fixed: frozenset[Kind] = frozenset()

    @property
    def passing(self) -> int:
        """Channels in the groups that it gets right."""
        return self.graph.num_channels - int(self.graph.sizes[list(self.failing)].sum())


_MAX_FLIPS = 16  # each costs a few forward passes; code with more such views repeats one block


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


def _read(
    model: nn.Module,
    example: Example,
    capture: Capture,
    kept: tuple[tuple[str, str], ...],
    ignored: Collection[str],
    check: bool,
) -> Facts:
    def read(
        flips: Collection[str],
        held: Mapping[int, str] | None = None,
        rewrite: bool = False,
        fixed: Collection[Kind] = (),
    ) -> _Reading:
        trace = capture.trace(flips)
        trace.ignore(ignored)
        grouping = Grouping(model, trace, held, rewrite=rewrite, fixed=fixed)
        graph = ChannelStructure(_facts(model, trace, grouping, kept))
        return _Reading(frozenset(flips), graph, grouping, {}, rewrite, frozenset(fixed))

    best = read(())
    if not check:
        return best.graph.facts

    def tried(reading: _Reading) -> _Reading:
        doubtful = reading.grouping.numbered()
        parts = reading.grouping.parts()
        failing = failing_groups(reading.graph, model, example, doubtful, parts)
        return replace(reading, failing=failing)

    best = tried(best)
    # What only train mode does may couple channels, not only hold them: its graph shows it.
    if any(map(in_training, best.failing.values())) and capture.add_training():
        best = tried(read(()))
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
                    less = tried(read(best.flips, rewrite=True, fixed=other.fixed | {unrelated}))
                    other = max(other, less, key=lambda r: r.passing)
            best = max(best, other, key=lambda r: r.passing)
    if best.failing:
        held = best.grouping.blame(best.failing)
        best = read(best.flips, held, best.rewrite, best.fixed)
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
