"""The networks whose steps are timed, registered as tasks with synthetic pixels.

What a step costs does not depend on what the pixels and weights are, so both are random and nothing
is downloaded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torchvision
from torch import nn

from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.models import CifarResNet
from pruning_env.tasks.registry import Task, register_task, task_names


@dataclass(frozen=True)
class Network:
    """What to time.

    Attributes:
        name: in rows and tables.
        build: makes it, with random weights.
        shape: (C, H, W) of an image.
        images: search-val images by default.
        target: largest allowed ratio of a step to its floor; 0 for none.
    """

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    images: int
    target: float = 0.0


def _torchvision(name: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
        return torchvision.models.get_model(name, weights=None)


STEP_NETWORKS = (
    Network(
        "digits-resnet8", partial(CifarResNet, 8, in_channels=1, shortcut="B"), (1, 8, 8), 400, 2.0
    ),
    Network("cifar10-resnet20", partial(CifarResNet, 20), (3, 32, 32), 1000, 1.25),
    Network("cifar10-resnet56", partial(CifarResNet, 56), (3, 32, 32), 500, 1.25),
    Network("resnet50", partial(_torchvision, "resnet50"), (3, 64, 64), 256, 1.25),
    Network("densenet121", partial(_torchvision, "densenet121"), (3, 64, 64), 256, 1.25),
)

PEER_NETWORKS = tuple(
    Network(name, partial(_torchvision, name), (3, size, size), 64)
    for name, size in (
        ("resnet18", 64),
        ("resnet50", 64),
        ("vgg16", 64),
        ("mobilenet_v2", 64),
        ("densenet121", 64),
        ("googlenet", 96),
    )
)


def register(network: Network, images: int, calibration: int, seed: int) -> str:
    """Make it a task of so many images; return the task's name."""
    name = f"speed-{network.name}-{images}-{calibration}-{seed}"
    if name not in task_names():
        register_task(
            Task(
                name=name,
                summary=f"{network.name}, random weights and pixels, for timing",
                build=network.build,
                load_data=partial(_splits, network.shape, images, calibration, seed),
                load_weights=_keep_random,
                input_shape=network.shape,
                val_seen=False,
            )
        )
    return name


def _splits(
    shape: tuple[int, int, int], images: int, calibration: int, seed: int, root: str | None
) -> Splits:
    del root
    generator = torch.Generator().manual_seed(seed)

    def split(count: int) -> Split:
        pixels = torch.randn((count, *shape), generator=generator)
        return Split(pixels, torch.randint(0, 10, (count,), generator=generator))

    mean, std = (0.0,) * shape[0], (1.0,) * shape[0]
    return Splits(split(calibration), split(images), split(2), mean, std, 10)


def _keep_random(module: nn.Module, weights: str | None, root: str | None) -> None:
    """Weights as they were drawn, the same in every process."""
    del weights, root
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
