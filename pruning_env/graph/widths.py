"""Where code compares numbers of channels, and at which other numbers it would decide otherwise.

The model is run once with sizes that are integers and remember what they are compared with; every
comparison is a predicate of one or two widths, of which the changes are found by trying all values.
Knows nothing of labels, groups and operators.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pruning_env.graph.example import Example, separate_twin

__all__ = ["Turn", "turns"]


@dataclass(frozen=True)
class Turn:
    """Widths at which code may decide otherwise than at those of the dense model.

    Attributes:
        widths: `(width in the dense model, width after pruning)` of what is compared.
        others: Whether what has another width keeps it; otherwise it shrinks in proportion.
    """

    widths: tuple[tuple[int, int], ...]
    others: bool


def turns(model: nn.Module, example: Example) -> tuple[list[Turn], bool]:
    """The turns of the comparisons that one run in eval mode makes, and whether there are any.

    Args:
        model: Left as it was.
        example: What it is called with.
    """
    twin = separate_twin(model).eval()
    seen: list[_Comparison] = []
    for module in twin.modules():
        for name in _WIDTHS & module.__dict__.keys():
            module.__dict__[name] = _watched(module.__dict__[name], seen)
    with _Watch(seen):
        try:
            example.run(twin)
        except Exception:  # of code that takes an int for what it is, and no subclass of it
            return [], True
    found: dict[Turn, None] = {}
    for comparison in dict.fromkeys(seen):
        found |= dict.fromkeys(_turns(comparison))
    return list(found), bool(seen)


# Attributes that surgery refreshes.
_WIDTHS = frozenset(
    (
        *("in_channels", "out_channels", "num_features", "num_channels", "in_features"),
        *("out_features", "num_parameters", "embedding_dim", "normalized_shape"),
        *("input_size", "hidden_size"),
    )
)

Of = Callable[[int], Any]


@dataclass(frozen=True)
class _Comparison:
    """`compare(left of its width, right of its width)`; equal where all numbers are."""

    compare: Callable[[Any, Any], bool]
    left: _Width
    right: Any

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Comparison) and self._key() == other._key()

    def _key(self) -> tuple[Any, ...]:
        right = self.right
        place = (int(right), right.base) if isinstance(right, _Width) else (right, None)
        return self.compare, int(self.left), self.left.base, *place


class _Width(int):
    """An integer that was computed from one width, and puts on record what it is compared with."""

    base: int
    of: Of
    record: list[_Comparison]

    @classmethod
    def make(cls, value: int, base: int, of: Of, record: list[_Comparison]) -> _Width:
        width = cls(value)
        width.base, width.of, width.record = base, of, record
        return width

    def __bool__(self) -> bool:
        self._note(operator.ne, 0)
        return int(self) != 0

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Width:
        return self

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)

    def _note(self, compare: Callable[[Any, Any], bool], other: Any) -> None:
        if _in_users_code(sys._getframe(2)) and isinstance(other, (int, float)):
            self.record.append(_Comparison(compare, self, other))


def _in_users_code(frame: Any) -> bool:
    return not Path(frame.f_code.co_filename).is_relative_to(_TORCH)


_TORCH = Path(torch.__file__).parent


def _comparing(name: str) -> Callable[[_Width, Any], Any]:
    compare = getattr(operator, name)

    def method(self: _Width, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        self._note(compare, other)
        return compare(int(self), int(other) if isinstance(other, int) else other)

    return method


def _computing(name: str, swapped: bool) -> Callable[[_Width, Any], Any]:
    compute = getattr(operator, name)

    def method(self: _Width, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        plain = int(other) if isinstance(other, int) else other
        here = self.of

        def of(width: int) -> Any:
            return compute(plain, here(width)) if swapped else compute(here(width), plain)

        value = compute(plain, int(self)) if swapped else compute(int(self), plain)
        if isinstance(value, int):
            return _Width.make(value, self.base, of, self.record)
        return value

    return method


for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(_Width, f"__{_name}__", _comparing(_name))
for _name in ("add", "sub", "mul", "floordiv", "mod"):
    setattr(_Width, f"__{_name}__", _computing(_name, swapped=False))
    setattr(_Width, f"__r{_name}__", _computing(_name, swapped=True))


def _same(width: int) -> int:
    return width


def _watched(value: Any, record: list[_Comparison]) -> Any:
    """A width, or a shape of them, that remembers."""
    if type(value) is int:
        return _Width.make(value, value, _same, record)
    if isinstance(value, tuple):
        return type(value)(_watched(each, record) for each in value)
    return value


class _Watch(TorchFunctionMode):
    """Hands out sizes that remember."""

    def __init__(self, record: list[_Comparison]) -> None:
        super().__init__()
        self._record = record

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SIZES:
            return _watched(result, self._record)
        return result


_SIZES = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]
_FEW = 4  # turns of one comparison that are tried: those next to the dense width and to 1


def _turns(comparison: _Comparison) -> Iterator[Turn]:
    left, right, compare = comparison.left, comparison.right, comparison.compare
    if not isinstance(right, _Width):
        outcomes = [_try(compare, left.of, lambda _: right, n, n) for n in range(1, left.base + 1)]
        for narrow in _changes(outcomes):
            yield Turn(((left.base, narrow),), others=False)
        return
    both = min(left.base, right.base)
    together = [_try(compare, left.of, right.of, n, n) for n in range(1, both + 1)]
    for narrow in _changes([*together, compare(int(left), int(right))]):
        bases = sorted({left.base, right.base})
        yield Turn(tuple((base, narrow) for base in bases), others=False)
    if left.base != right.base:
        alone = [_try(compare, left.of, right.of, n, right.base) for n in range(1, left.base + 1)]
        yield from (Turn(((left.base, n),), others=True) for n in _changes(alone))
        alone = [_try(compare, left.of, right.of, left.base, n) for n in range(1, right.base + 1)]
        yield from (Turn(((right.base, n),), others=True) for n in _changes(alone))


def _try(compare: Callable[[Any, Any], bool], left: Of, right: Of, a: int, b: int) -> bool | None:
    try:
        return compare(left(a), right(b))
    except ArithmeticError:
        return None


def _changes(outcomes: list[bool | None]) -> list[int]:
    """Widths, from 1, at both sides of where the outcome changes: some of many."""
    found: dict[int, None] = {}
    for narrow in range(1, len(outcomes)):
        if outcomes[narrow - 1] != outcomes[narrow]:
            found |= {narrow: None, narrow + 1: None}
    inside = [narrow for narrow in found if narrow < len(outcomes)]
    return inside if len(inside) <= _FEW else inside[: _FEW // 2] + inside[-_FEW // 2 :]
