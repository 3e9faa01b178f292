"""Networks by what their users call them: torchvision's and timm's names, and functions in code.

Knows nothing of weights, images or pruning. Imports nothing heavy before a network is asked for.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ImageFormat", "build_network", "image_format", "import_object", "is_code"]

TIMM = "timm:"

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageFormat:
    """The images that a network was made for.

    Attributes:
        shape: (C, H, W) of one.
        mean: Per channel, of pixel / 255.
        std: As `mean`.
    """

    shape: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD


def is_code(model: str) -> bool:
    """Whether a name says which code is to be run, rather than which known network is meant."""
    return ":" in model and not model.startswith(TIMM)


def build_network(model: str, num_classes: int | None = None) -> nn.Module:
    """The untrained network that `model` names; what a function of the user's returns, as it is.

    Args:
        model: A name of torchvision's (`resnet18`) or of timm's (`timm:resnet18`), or a function,
            as `package.module:function` or `path/to/file.py:function`, which is imported and
            called. It is given `num_classes` if it has a parameter of that name.
        num_classes: Outputs; None means as many as the network has by default.

    Raises:
        ValueError: There is no such network, or what was called returned none.
    """
    from torch import nn

    if model.startswith(TIMM):
        built = _timm().create_model(_timm_name(model), **_classes(num_classes))
    elif is_code(model):
        function = import_object(model, argument="model")
        if not callable(function):
            raise ValueError(f"model={model!r} is not callable")
        built = function(**(_classes(num_classes) if _takes_classes(function) else {}))
        if not isinstance(built, nn.Module):
            raise ValueError(
                f"model={model!r} returned {type(built).__name__}, not a torch.nn.Module"
            )
    else:
        built = _torchvision_network(model, num_classes)
    return built


def image_format(model: str) -> ImageFormat:
    """What the images of `model` are like, where it says so; else those of ImageNet networks.

    Raises:
        ValueError: timm has no such network, or is not installed.
    """
    if model.startswith(TIMM):
        found = _timm().get_pretrained_cfg(_timm_name(model), allow_unregistered=True)
        if found is not None:
            return ImageFormat(tuple(found.input_size), tuple(found.mean), tuple(found.std))
    return ImageFormat()


def import_object(path: str, *, argument: str) -> Any:
    """What is at `package.module:name` or `path/to/file.py:name`; the module is run.

    Args:
        path: Of that form.
        argument: Begins the message of an error.

    Raises:
        ValueError: There is no such thing, or its module cannot be imported.
    """
    place, _, name = path.rpartition(":")
    if place.endswith(".py") and not Path(place).is_file():
        raise ValueError(f"{argument}={path!r}: there is no file {place}")
    load = _module_of_file if place.endswith(".py") else importlib.import_module
    try:
        return getattr(load(place), name)
    except Exception as error:  # it is somebody's code, and may fail in any way
        raise ValueError(
            f"{argument}={path!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _module_of_file(path: str) -> ModuleType:
    """The module in a file, under its stem, so that objects of its classes can be pickled."""
    file = Path(path).resolve()
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == os.fspath(file):
        return loaded
    if loaded is not None:
        name = f"{name}_{zlib.crc32(os.fsencode(file)):08x}"
    specification = importlib.util.spec_from_file_location(name, file)
    assert specification is not None and specification.loader is not None  # it ends in .py
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    sys.path.append(os.fspath(file.parent))  # for what the file imports from beside it
    try:
        specification.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _torchvision_network(model: str, num_classes: int | None) -> nn.Module:
    import torchvision

    known = torchvision.models.list_models()
    if model not in known:
        raise ValueError(
            f"model={model!r} is unknown{_perhaps(model, known)}; give a model of torchvision "
            "(such as resnet18), timm:NAME, path/to/file.py:function or module:function"
        )
    options: dict[str, Any] = {"weights": None}
    builder = torchvision.models.get_model_builder(model)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # or it would be downloaded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
        return torchvision.models.get_model(model, **options, **_classes(num_classes))


def _takes_classes(function: Any) -> bool:
    try:
        return "num_classes" in inspect.signature(function).parameters
    except ValueError:  # a built-in that does not say
        return False


def _timm() -> ModuleType:
    try:
        return importlib.import_module("timm.models")
    except ImportError as error:
        raise ValueError(
            "model='timm:...' needs timm, which is not installed: pip install 'pruning-env[timm]'"
        ) from error


def _timm_name(model: str) -> str:
    name, models = model.removeprefix(TIMM), _timm()
    if not models.is_model(name.partition(".")[0]):
        raise ValueError(f"model={model!r}: timm has none{_perhaps(name, models.list_models())}")
    return name


def _perhaps(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, 3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""


def _classes(num_classes: int | None) -> dict[str, int]:
    return {} if num_classes is None else {"num_classes": num_classes}
