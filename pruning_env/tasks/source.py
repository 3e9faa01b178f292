"""Where the network and the images of a task lie that is made from a model and files.

What a saved network of such a task carries, so that another process can make the task again. Knows
nothing of how networks and images are read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

__all__ = ["Source"]


@dataclass(frozen=True)
class Source:
    """The arguments of `make_task`; paths become absolute.

    Attributes:
        model: What `build_network` takes.
        num_classes: Outputs of the network.
        input_shape: (C, H, W) of one image.
        weights: File of the dense weights; None where the model brings its own.
        images: Folder of images by class, or None.
        npz: An `.npz` file, or None.
        mean: Per channel, of pixel / 255; None means that of search-train.
        std: Likewise.
    """

    model: str
    num_classes: int
    input_shape: tuple[int, int, int]
    weights: str | None
    images: str | None
    npz: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    def __post_init__(self) -> None:
        for name in ("weights", "images", "npz"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, os.path.abspath(path))
        place, colon, function = self.model.rpartition(":")
        if place.endswith(".py"):
            object.__setattr__(self, "model", f"{os.path.abspath(place)}{colon}{function}")

    def as_json(self) -> dict[str, Any]:
        """As it is written into a recipe."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Source:
        """What `as_json` gave.

        Raises:
            ValueError: It is of another form.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, Mapping) or set(values) != names:
            raise ValueError(f"recipe: source={values!r}; it has the keys {', '.join(names)}")
        paths = [values[name] for name in ("weights", "images", "npz")]
        numbers = [*values["input_shape"], *(values["mean"] or ()), *(values["std"] or ())]
        sound = (
            isinstance(values["model"], str)
            and type(values["num_classes"]) is int
            and len(values["input_shape"]) == 3
            and all(path is None or isinstance(path, str) for path in paths)
            and all(type(number) in (int, float) for number in numbers)
        )
        if not sound:
            raise ValueError(f"recipe: source={dict(values)!r} is damaged")
        lists = {name: values[name] and tuple(values[name]) for name in ("mean", "std")}
        return cls(**{**values, **lists, "input_shape": tuple(values["input_shape"])})
