"""Tasks: a trained network together with the images it is judged on, under a name.

`register_task` makes a user's own network and data reachable by `gym.make(..., task="name")`
exactly like the built-in ones. Knows nothing of pruning or environments. Networks and images, and
torch with them, are imported when a task is used, so that a listing is quick.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pruning_env.plugins import load_plugins
from pruning_env.tasks.loads import load
from pruning_env.tasks.networks import build_network

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.tasks.data import Splits
    from pruning_env.tasks.source import Source

__all__ = ["Task", "get_task", "imagefolder_task", "register_task", "task_names"]

# No path, and no ":" either, by which recipes tell import paths from tasks.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)

WEIGHTS_FOLDER = Path(__file__).parent / "models" / "weights"


class BuildNetwork(Protocol):
    """`Task.build`."""

    def __call__(self) -> nn.Module:
        """The network of a task, untrained."""
        ...


class LoadData(Protocol):
    """`Task.load_data`."""

    def __call__(self, data_root: str | None, /) -> Splits:
        """The images of a task; a root of None means the default, see `data.data_root`."""
        ...


class LoadWeights(Protocol):
    """`Task.load_weights`."""

    def __call__(self, module: nn.Module, weights: str | None, data_root: str | None, /) -> None:
        """Fill the network from the file `weights`; None means the task's own weights."""
        ...


@dataclass(frozen=True)
class Task:
    """What to prune and what to judge it on.

    Attributes:
        name: Key in the registry.
        summary: One line for listings.
        build: Makes the network, untrained.
        load_data: Data root (None: see `data.data_root`) -> splits. Calls are counted; see
            `pruning_env.tasks.loads`.
        load_weights: (Built network, weights file, data root): fills the network. A file of None
            means the task's own weights, a root of None the default one.
        input_shape: (C, H, W) of one image.
        val_seen: Whether the dense weights were trained on images that are in search-val, which
            makes search-val accuracies optimistic; every result row must say so.
        source: Where network and images lie, of a task that `make_task` made; else None.
        trace: Gives the network's channel graph where that comes with the weights and spares
            tracing; None: it has to be traced.
    """

    name: str
    summary: str
    build: BuildNetwork
    load_data: LoadData
    load_weights: LoadWeights
    input_shape: tuple[int, int, int]
    val_seen: bool
    source: Source | None = None
    trace: Callable[[], ChannelGraph] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "load_data", partial(load, self.load_data))

    def model(
        self, weights: str | os.PathLike[str] | None = None, data_root: str | None = None
    ) -> nn.Module:
        """The network with its weights, in eval mode, on the CPU.

        Args:
            weights: A weights file for this architecture; None means the task's own.
            data_root: Where tasks whose weights lie beside the data look for them; see
                `data.data_root`.

        Raises:
            FileNotFoundError: There is no such file, or the task has no weights of its own here.
            ValueError: The file is damaged or for another architecture.
        """
        import torch

        # Building draws initial weights that are overwritten at once; the caller's random stream
        # must not move for that.
        with torch.random.fork_rng(devices=[]):
            module = self.build()
        self.load_weights(module, None if weights is None else os.fspath(weights), data_root)
        return module.eval()

    def example_input(self) -> torch.Tensor:
        """(1, C, H, W) float32, always the same standard normal numbers."""
        import torch

        generator = torch.Generator().manual_seed(0)
        return torch.randn((1, *self.input_shape), generator=generator)

    def graph(self, model: nn.Module) -> ChannelGraph:
        """The channels of `model`, which this task made."""
        if self.trace is not None:
            return self.trace()
        from pruning_env.graph.channel_graph import ChannelGraph

        return ChannelGraph.trace(model, self.example_input())


_TASKS: dict[str, Task] = {}

_SERIES = {"pool-": "pruning_env.tasks.pools.tasks"}
"""By how their names begin: modules whose `make(name)` makes tasks that no listing has."""


def register_task(task: Task) -> None:
    """Make `task` known under its name.

    One that `make_task` made takes the place of an earlier one that it made under this name.

    Raises:
        ValueError: The name is taken, or none.
    """
    if not _NAME.fullmatch(task.name):
        raise ValueError(
            f"task.name={task.name!r}: not allowed; a name has letters, digits, '_', '.' and '-', "
            "and begins with a letter or digit. It becomes part of file names."
        )
    if task.name in _TASKS and None in (task.source, _TASKS[task.name].source):
        raise ValueError(f"task.name={task.name!r}: a task of this name is registered already.")
    _TASKS[task.name] = task


def get_task(name: str) -> Task:
    """The task registered under `name`.

    Raises:
        ValueError: There is none; the message lists the names there are.
    """
    load_plugins()
    if isinstance(name, str):
        if name in _TASKS:
            return _TASKS[name]
        for beginning, home in _SERIES.items():
            if name.startswith(beginning):
                return import_module(home).make(name)
    raise ValueError(f"task={name!r}: unknown; registered tasks are {', '.join(_TASKS)}.")


def task_names() -> tuple[str, ...]:
    """The registered names, in the order of registration; those of plug-ins too."""
    load_plugins()
    return tuple(_TASKS)


def _built(name: str, *given: Any, **named: Any) -> nn.Module:
    """What `name` of `tasks.models` makes of the arguments."""
    from pruning_env.tasks import models

    return getattr(models, name)(*given, **named)


def _images(loader: str, root: str | None) -> Splits:
    """What `loader` of `tasks.data` finds in the data root."""
    from pruning_env.tasks import data

    return getattr(data, loader)(root)


def _load(module: nn.Module, path: str | os.PathLike[str]) -> None:
    from pruning_env.tasks.models import load_state_file

    load_state_file(module, path)


def _checkpoints(root: str | None) -> Path:
    from pruning_env.tasks.data import data_root

    return data_root(root) / "checkpoints"


def _shipped_weights(file: str, module: nn.Module, weights: str | None, root: str | None) -> None:
    """Load `weights`, or the file of this name that comes with the package."""
    del root
    _load(module, weights if weights is not None else WEIGHTS_FOLDER / file)


def _published_checkpoint(
    pattern: str, module: nn.Module, weights: str | None, root: str | None
) -> None:
    """Load `weights`, or the one file like `pattern` under `checkpoints/` in the data root."""
    if weights is not None:
        _load(module, weights)
        return
    folder = _checkpoints(root)
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(
            f"weights: this task ships none, and {folder} holds {len(found)} files like {pattern} "
            f"where one is needed. Pass weights=<file>, a checkpoint of "
            f"github.com/akamaster/pytorch_resnet_cifar10, or name by data_root= or the variable "
            f"PRUNING_ENV_DATA a folder that holds it under checkpoints/."
        )
    _load(module, found[0])


def _trained_here(
    name: str, title: str, module: nn.Module, weights: str | None, root: str | None
) -> None:
    """Load `weights`, or `checkpoints/<name>.safetensors` in the data root."""
    if weights is not None:
        _load(module, weights)
        return
    path = _checkpoints(root) / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: {title} ships none, and there is no file {path}. Train them from a "
            f"checkout with `python -m benchmarks train --task {name} --device cuda --out {path}`, "
            "or pass weights=<file>."
        )
    _load(module, path)


def _published_imagenet(
    model: str, module: nn.Module, weights: str | None, root: str | None
) -> None:
    """Load `weights`, or the one file of torchvision's for `model` under `checkpoints/`."""
    if weights is None:
        folder = _checkpoints(root)
        found = sorted(folder.glob(f"{model}-*.pth"))
        if len(found) != 1:
            raise FileNotFoundError(
                f"weights: {folder} holds {len(found)} files like {model}-*.pth where one is "
                "needed. Put torchvision's published file there, or pass weights=<file>."
            )
        weights = os.fspath(found[0])
    _load(module, weights)


def imagefolder_task(
    model: str,
    *,
    name: str | None = None,
    folder: str = "imagefolder",
    num_classes: int = 1000,
    image_size: int = 224,
    search_train: int = 20_000,
    search_val: int = 5_000,
    val_seen: bool = True,
) -> Task:
    """A task of a torchvision classifier on images in folders by class, such as ImageNet.

    `register_task(imagefolder_task("resnet50"))` makes it known as `imagefolder-resnet50`. Images
    are `<data_root>/<folder>/{train,val}/<class>/<file>`; weights are given by `weights=`, or are
    torchvision's file `<data_root>/checkpoints/<model>-<hash>.pth`.

    Args:
        model: Name of a classifier in torchvision.
        name: Name of the task; None means `<folder>-<model>`.
        folder: In the data root.
        num_classes: Outputs of the network.
        image_size: Height and width of the images in pixels.
        search_train: Training images to hold for scores, statistics and fine-tuning, at most.
        search_val: Training images to hold for rewards, at most; fewer in proportion where there
            are too few for both.
        val_seen: Whether the weights saw the search-val images; so it is with torchvision's.

    Raises:
        ValueError: torchvision has no such model.
    """
    from torchvision.models import list_models

    if model not in list_models():
        raise ValueError(f"model={model!r}: torchvision has no such model; see list_models().")
    return Task(
        name=f"{folder}-{model}" if name is None else name,
        summary=f"torchvision's {model} on images in folders; weights from a file",
        build=partial(build_network, model, num_classes),
        load_data=partial(
            _load_imagefolder,
            folder=folder,
            image_size=image_size,
            search_train=search_train,
            search_val=search_val,
        ),
        load_weights=partial(_published_imagenet, model),
        input_shape=(3, image_size, image_size),
        val_seen=val_seen,
    )


def _load_imagefolder(root: str | None, **settings: Any) -> Splits:
    from pruning_env.tasks.image_folders import load_imagefolder

    return load_imagefolder(root, **settings)


def _load_digits(root: str | None) -> Splits:
    """The digits come with scikit-learn, so there is no folder to look in."""
    from pruning_env.tasks.data import load_digits8

    del root
    return load_digits8()


register_task(
    Task(
        name="digits-resnet8",
        summary="ResNet-8 on 8 x 8 handwritten digits (scikit-learn); trained weights included",
        build=partial(_built, "CifarResNet", 8, in_channels=1, shortcut="B"),
        load_data=_load_digits,
        load_weights=partial(_shipped_weights, "digits-resnet8.safetensors"),
        input_shape=(1, 8, 8),
        val_seen=False,
    )
)
for _depth in (20, 32, 56):
    register_task(
        Task(
            name=f"cifar10-resnet{_depth}",
            summary=f"ResNet-{_depth} (He et al. 2016, option A) on CIFAR-10; weights from a file",
            build=partial(_built, "CifarResNet", _depth),
            load_data=partial(_images, "load_cifar10"),
            load_weights=partial(_published_checkpoint, f"resnet{_depth}-*.th"),
            input_shape=(3, 32, 32),
            # The published checkpoints were trained on all 50,000 training images.
            val_seen=True,
        )
    )

# Weights of these are trained by `python -m benchmarks train`, on search-train only.
_TRAINED_HERE: tuple[tuple[str, str, BuildNetwork], ...] = (
    ("cifar10-vgg11", "VGG-11-BN, one linear classifier", partial(_built, "CifarVGG", 11)),
    ("cifar10-vgg16", "VGG-16-BN, one linear classifier", partial(_built, "CifarVGG", 16)),
    ("cifar10-vgg19", "VGG-19-BN, one linear classifier", partial(_built, "CifarVGG", 19)),
    ("cifar10-resnet18", "ResNet-18 with a 3 x 3 stem", partial(_built, "cifar_resnet18")),
    (
        "cifar10-mobilenetv2",
        "MobileNetV2 at full resolution",
        partial(_built, "cifar_mobilenet_v2"),
    ),
    (
        "cifar100-vgg19",
        "VGG-19-BN with two hidden layers of 4,096",
        partial(_built, "CifarVGG", 19, num_classes=100, hidden=4096),
    ),
    (
        "cifar100-resnet56",
        "ResNet-56 (He et al. 2016, option B)",
        partial(_built, "CifarResNet", 56, num_classes=100, shortcut="B"),
    ),
    (
        "cifar100-resnet50",
        "ResNet-50 with a 3 x 3 stem",
        partial(_built, "cifar_resnet50", num_classes=100),
    ),
    (
        "cifar100-densenet121",
        "DenseNet-121 with a 3 x 3 stem",
        partial(_built, "cifar_densenet121", num_classes=100),
    ),
    (
        "cifar100-googlenet",
        "GoogLeNet with a 3 x 3 stem",
        partial(_built, "CifarGoogLeNet", num_classes=100),
    ),
    (
        "cifar100-mobilenetv3",
        "MobileNetV3-Large, stem of stride 2",
        partial(_built, "CifarMobileNetV3", num_classes=100),
    ),
)
for _name, _network, _build in _TRAINED_HERE:
    _cifar100 = _name.startswith("cifar100")
    register_task(
        Task(
            name=_name,
            summary=f"{_network} on CIFAR-{100 if _cifar100 else 10}; weights by benchmarks train",
            build=_build,
            load_data=partial(_images, "load_cifar100" if _cifar100 else "load_cifar10"),
            load_weights=partial(_trained_here, _name, _network),
            input_shape=(3, 32, 32),
            val_seen=False,
        )
    )
register_task(
    Task(
        name="mnist-lenet5",
        summary="LeNet-5 with ReLU on MNIST; weights by benchmarks train",
        build=partial(_built, "LeNet5"),
        load_data=partial(_images, "load_mnist"),
        load_weights=partial(_trained_here, "mnist-lenet5", "LeNet-5"),
        input_shape=(1, 28, 28),
        val_seen=False,
    )
)
