"""What a network of a pool is, as a few numbers and names, and how one is drawn.

The ranges below are all that a pool's networks differ in. Knows nothing of modules or weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from pruning_env.arguments import check_choice, check_count

__all__ = ["ACTIVATIONS", "FAMILIES", "NORMS", "Specification", "draw"]

FAMILIES = ("plain", "residual-a", "residual-b", "inverted-residual", "dense", "inception")
"""Stacks of convolutions; residual blocks with shortcuts of option A or B (He et al. 2016);
inverted residual blocks with squeeze-and-excitation (Howard et al. 2019); dense blocks with
bottlenecks (Huang et al. 2017); four parallel branches (Szegedy et al. 2015)."""

ACTIVATIONS = ("relu", "leaky-relu", "silu", "gelu", "hardswish")
NORMS = ("batch", "group")
"""Batch norm, or group norm with two groups of channels, which then go in pairs."""

_NORM_CHANCES = (0.75, 0.25)
_STAGES = (2, 3)
_FIRST_WIDTH = (6, 17)  # half open, of the first stage; doubled, so that widths are even
_GROWTH = (1.0, 1.7)  # from one stage to the next
_KERNELS = (3, 3, 3, 5)
_HIDDEN = (0, 0, 16, 24, 32)
_BLOCKS = {  # in a stage, at most
    "plain": 3,
    "residual-a": 3,
    "residual-b": 3,
    "inverted-residual": 3,
    "dense": 3,
    "inception": 2,
}
_WIDTH_FACTOR = {
    "plain": 0.6,
    "residual-a": 0.5,
    "residual-b": 0.5,
    "inverted-residual": 0.6,
    "dense": 0.3,
    "inception": 1.0,
}


@dataclass(frozen=True)
class Specification:
    """A network of 8 x 8 images of one channel and ten classes.

    Attributes:
        family: One of `FAMILIES`.
        widths: Channels of each stage, even; of "dense" what each layer adds, of "inception" those
            of all branches together. The resolution halves from one stage to the next.
        blocks: Blocks of each stage.
        kernels: Kernel size of each stage's spatial convolutions, odd.
        stem_kernel: That of the first convolution.
        activation: One of `ACTIVATIONS`.
        norm: One of `NORMS`.
        expansion: Of "inverted-residual" and "dense", how much wider blocks are inside.
        hidden: Units of a hidden layer before the classifier; 0 for none.
        seed: Of the initial weights and of the training.
    """

    family: str
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    kernels: tuple[int, ...]
    stem_kernel: int = 3
    activation: str = "relu"
    norm: str = "batch"
    expansion: int = 2
    hidden: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("family", self.family, FAMILIES)
        check_choice("activation", self.activation, ACTIVATIONS)
        check_choice("norm", self.norm, NORMS)
        for name in ("widths", "blocks", "kernels"):
            numbers = tuple(check_count(name, number) for number in getattr(self, name))
            if len(numbers) != len(self.blocks) or not numbers:
                raise ValueError(f"{name}={numbers} is not allowed; give one number for each stage")
            object.__setattr__(self, name, numbers)
        if any(width % 2 for width in self.widths):
            raise ValueError(f"widths={self.widths} is not allowed; give even numbers")
        if any(kernel % 2 == 0 for kernel in (*self.kernels, self.stem_kernel)):
            raise ValueError(
                f"kernels={self.kernels}, stem_kernel={self.stem_kernel} is not allowed; "
                "give odd numbers"
            )
        if self.family == "residual-a" and list(self.widths) != sorted(self.widths):
            raise ValueError(
                f"widths={self.widths} is not allowed; shortcuts of option A pad channels, "
                "so that widths must not shrink"
            )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, names and lists, from which `from_json` makes it again."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Specification:
        """The specification that `to_json` wrote.

        Raises:
            ValueError: It is none; the message names what is wrong.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(given, Mapping) or not set(given) <= known:
            raise ValueError(f"specification={given!r} is not allowed; its names are {known}")
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
        try:
            return cls(**plain)
        except TypeError as error:
            raise ValueError(f"specification={given!r} is not allowed: {error}") from error


def draw(rng: np.random.Generator, families: Sequence[str] = FAMILIES) -> Specification:
    """A random network of one of `families`; how large it came out is for the caller to look at.

    Raises:
        ValueError: There is no such family.
    """
    for family in families:
        check_choice("families", family, FAMILIES)
    family = str(rng.choice(list(families)))
    stages = int(rng.choice(_STAGES))
    width = 2 * int(rng.integers(*_FIRST_WIDTH)) * _WIDTH_FACTOR[family]
    widths = []
    for _ in range(stages):
        widths.append(max(4, 2 * round(width / 2)))
        width *= rng.uniform(*_GROWTH)
    return Specification(
        family=family,
        widths=tuple(widths),
        blocks=tuple(int(n) for n in rng.integers(1, _BLOCKS[family] + 1, size=stages)),
        kernels=tuple(int(k) for k in rng.choice(_KERNELS, size=stages)),
        stem_kernel=int(rng.choice(_KERNELS)),
        activation=str(rng.choice(ACTIVATIONS)),
        # Coupled in pairs, the channels that a shortcut of option A pads would have to stay.
        norm="batch" if family == "residual-a" else str(rng.choice(NORMS, p=_NORM_CHANCES)),
        expansion=int(rng.integers(2, 4)),
        hidden=int(rng.choice(_HIDDEN)),
        seed=int(rng.integers(2**31)),
    )
