"""Tasks made from any model and any images, by where these lie.

`make_task` looks at what it is given and refuses what does not fit together; `task_from` makes the
same task again of the `Source` that a saved network carries.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning_env.tasks.loads import sealing
from pruning_env.tasks.networks import build_network, image_format, is_code
from pruning_env.tasks.registry import Task
from pruning_env.tasks.source import Source

if TYPE_CHECKING:
    from torch import nn

    from pruning_env.tasks.data import Splits

__all__ = ["make_task", "task_from"]


def make_task(
    model: str,
    *,
    images: str | os.PathLike[str] | None = None,
    npz: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    input_shape: tuple[int, int, int] | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    name: str | None = None,
) -> Task:
    """A task of any classifier on any images; `register_task` makes it known.

    The network has as many outputs as there are classes. Networks saved from it can be loaded by
    `load_pruned` in other processes too, without registering anything; but where `model` is code,
    only with `allow_import=True`.

    Args:
        model: `resnet18` (torchvision), `timm:NAME`, `path/to/file.py:function` or
            `package.module:function`; a function is given `num_classes` if it has that parameter.
        images: Folder of images by class, see `load_class_folders`.
        npz: `.npz` file of images, see `load_npz`. One of the two is needed.
        weights: File of dense weights: `.safetensors`, or what `torch.save` wrote of a
            `state_dict`. Needed unless a function returns a network that has its weights.
        input_shape: (C, H, W) that images in folders are scaled to; None means what timm says, and
            3 x 224 x 224. Of an `.npz` file it is that of its images.
        mean: Per channel, of pixel / 255, with which the network was trained; None means what timm
            says, and ImageNet's, and that of search-train for grey images and for `.npz` files.
        std: Likewise.
        name: Of the task; None makes one of model and images.

    Raises:
        FileNotFoundError: Weights or images are not there.
        ValueError: There is no such model, or the parts do not fit together.
    """
    if (images is None) == (npz is None):
        raise ValueError(
            f"images={images!r}, npz={npz!r}: give one of them, a folder of images by class or an "
            ".npz file"
        )
    usual = image_format(model)
    if images is not None:
        from pruning_env.tasks.image_folders import class_names

        shape = usual.shape if input_shape is None else tuple(input_shape)
        if len(shape) != 3 or shape[0] not in (1, 3) or min(shape) < 1:
            raise ValueError(
                f"input_shape={shape!r}: images in folders are (3, H, W) in colour, or (1, H, W)"
            )
        num_classes = len(class_names(images))
        if shape[0] == len(usual.mean):
            mean, std = mean or usual.mean, std or usual.std
    else:
        assert npz is not None
        path = Path(npz)
        if path.suffix != ".npz" or not path.is_file():
            raise FileNotFoundError(f"npz={os.fspath(npz)!r}: there is no .npz file of this name")
        with sealing():
            splits = _load_npz(path)
        _, *sides = splits.search_val.images.shape
        shape, num_classes = (sides[0], sides[1], sides[2]), splits.num_classes
        if input_shape not in (None, shape):
            raise ValueError(f"input_shape={input_shape!r}: the images of {npz} are {shape}")
    for argument, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != shape[0]:
            raise ValueError(f"{argument}={values!r}: images have {shape[0]} channels")
    if std is not None and min(std) <= 0:
        raise ValueError(f"std={std!r}: must be above 0")
    task = task_from(
        Source(
            model=model,
            num_classes=num_classes,
            input_shape=shape,
            weights=None if weights is None else os.fspath(weights),
            images=None if images is None else os.fspath(images),
            npz=None if npz is None else os.fspath(npz),
            mean=mean,
            std=std,
        ),
        name=name,
    )
    _check(task, num_classes)
    return task


def task_from(source: Source, *, name: str | None = None) -> Task:
    """The task of a source, of which nothing is looked at yet; `model` of code is run when built.

    Args:
        source: Where network and images lie.
        name: As for `make_task`.
    """
    images = source.images or source.npz
    assert images is not None  # `make_task` says so
    model = source.model.removeprefix("timm:")
    if is_code(model):
        model = Path(model.rpartition(":")[0]).stem.rpartition(".")[2]
    made = re.sub(r"[^\w.-]+", "-", f"{model}-on-{Path(images).stem}", flags=re.ASCII)
    return Task(
        name=made.lstrip("_.-") if name is None else name,
        summary=f"{source.model} on {images}",
        build=partial(build_network, source.model, source.num_classes),
        load_data=partial(_load_images, source),
        load_weights=partial(_load_weights, source),
        input_shape=source.input_shape,
        val_seen=True,  # as far as anyone knows
        source=source,
    )


def _check(task: Task, num_classes: int) -> None:
    """Refuse a network that has no weights, or says something else than one of the classes."""
    import torch

    assert task.source is not None
    if task.source.weights is None and _draws_weights(task):
        raise ValueError(
            f"weights=None: {task.source.model} builds a network with random weights; give a file"
        )
    model = task.model()
    try:
        with torch.inference_mode():
            output = model(task.example_input())
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        raise ValueError(
            f"model={task.source.model!r} does not take images of {task.input_shape}: {error}"
        ) from error
    found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
    if found != (1, num_classes):
        raise ValueError(
            f"model={task.source.model!r} returns {found} for one image; needed are logits of "
            f"(1, {num_classes}), since there are {num_classes} classes"
        )


def _draws_weights(task: Task) -> bool:
    """Whether the network is another one with another seed."""
    import torch

    states = []
    with torch.random.fork_rng(devices=[]):
        for seed in range(2):
            torch.manual_seed(seed)
            states.append(task.build().state_dict())
    first, second = states
    return any(not torch.equal(tensor, second[name]) for name, tensor in first.items())


def _load_weights(source: Source, module: nn.Module, weights: str | None, root: str | None) -> None:
    del root
    path = weights or source.weights
    if path is None:
        return  # `make_task` has seen that the function returns a network with weights
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights: there is no file {path}")
    from pruning_env.tasks.models import load_state_file

    load_state_file(module, path)


def _load_images(source: Source, root: str | None) -> Splits:
    del root
    if source.images is not None:
        from pruning_env.tasks.image_folders import load_class_folders

        splits = load_class_folders(
            source.images, shape=source.input_shape, mean=source.mean, std=source.std
        )
    else:
        assert source.npz is not None
        splits = _load_npz(Path(source.npz), mean=source.mean, std=source.std)
    if splits.num_classes != source.num_classes:
        raise ValueError(
            f"images: {source.images or source.npz} has {splits.num_classes} classes; the model "
            f"has {source.num_classes} outputs"
        )
    return splits


def _load_npz(path: Path, **settings: Any) -> Splits:
    from pruning_env.tasks.data import load_npz

    return load_npz(path.stem, path.parent, **settings)
