"""Numbers of channels that a model keeps in attributes of its modules, and reads in `forward`.

`self.width = 26` and `x.split(self.width, 1)`: a trace sees a split into parts of 26 and cannot
tell where that number came from. Here are the attributes that equal a number of channels which an
operator of the same module was given. Which of them really are that number is for a trial to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from torch import Tensor, nn

from pruning_env.graph.structure import Attribute, Indices
from pruning_env.graph.tracing.trace import Trace

Kind = tuple[type, str]
"""A class of modules, and an attribute of it."""


def attributes(
    model: nn.Module, trace: Trace, channels: Callable[[Tensor], Indices]
) -> Iterator[Attribute]:
    """Every attribute that may be a number of channels.

    Args:
        model: The traced module.
        trace: Its trace.
        channels: The channels of labels, -1 for what is never removed.
    """
    sizes: dict[str, list[list[Indices]]] = {}
    for module, lines in trace.sizes:
        sizes.setdefault(module, []).append([channels(line) for line in lines])
    for path, given in sizes.items():
        owner = model.get_submodule(path)
        if type(owner).__module__.startswith("torch."):
            continue  # surgery knows these
        for name, value in vars(owner).items():
            numbers = [value] if type(value) is int else value
            if type(numbers) not in (list, tuple) or {type(n) for n in numbers} != {int}:
                continue
            for index, counted in enumerate(_counted(numbers, given)):
                if counted is not None and (counted >= 0).any():
                    place = None if type(value) is int else index
                    yield Attribute(path, name, place, counted)


def tie_widths(model: nn.Module, trace: Trace, kinds: Collection[type]) -> None:
    """Let equal numbers of channels in one module stay equal, for every module of `kinds`.

    `B, N, C = x.shape` and later `y.reshape(B, N, C)`: one number, of several channels. Those at
    equal places are tied.
    """
    found: dict[tuple[str, int], list[Tensor]] = {}
    given = [*trace.sizes, *trace.entries.items()]
    for path, lines in given:
        if type(model.get_submodule(path)) in kinds:
            for line in lines:
                if len(line) > 1 and bool(line.all()):  # some of it may shrink
                    found.setdefault((path, len(line)), []).append(line)
    for (path, _), lines in found.items():
        for line in lines[1:]:
            trace.space.merge(lines[0], line, f"meets another number of channels in {path}")


def _counted(numbers: Sequence[int], given: list[list[Indices]]) -> list[Indices | None]:
    """What each of the numbers counts: all of them the parts of one split, or each by itself."""
    for lines in given:
        if len(numbers) > 1 and [len(line) for line in lines[: len(numbers)]] == list(numbers):
            return list(lines[: len(numbers)])
    each = [line for lines in given for line in lines]
    return [
        next((line for line in each if len(line) == number and (line >= 0).any()), None)
        for number in numbers
    ]


def kind_of(attribute: Attribute, model: nn.Module) -> Kind:
    """The same for the attribute of every module of one class: they share their code."""
    return type(model.get_submodule(attribute.module)), attribute.name
