"""Images in folders by class, such as ImageNet, as the three splits of a task.

Held in memory as plain tensors, like every data set here (data.py). Knows nothing of models,
pruning or environments.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pruning_env.tasks.data import (
    DATA_VARIABLE,
    Split,
    Splits,
    carve,
    data_root,
    statistics,
)
from pruning_env.tasks.loads import counted
from pruning_env.tasks.networks import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from torchvision.datasets import ImageFolder

__all__ = ["class_names", "load_class_folders", "load_imagefolder"]

FEWEST_PER_CLASS = 5
"""Images per class, on average, with which each of three splits can have some of most classes."""


@counted
def load_imagefolder(
    root: str | os.PathLike[str] | None = None,
    *,
    folder: str = "imagefolder",
    image_size: int = 224,
    search_train: int = 20_000,
    search_val: int = 5_000,
    test_images: int = 50_000,
) -> Splits:
    """Images in folders by class in the data root, as ImageNet's networks take them.

    Args:
        root: Data root; None means $PRUNING_ENV_DATA, and if that is not set the download cache.
        folder: Name of the folder in it; see `load_class_folders`.
        image_size: Height and width in pixels.
        search_train: As for `load_class_folders`.
        search_val: Likewise.
        test_images: Likewise.

    Raises:
        FileNotFoundError: The folders are not there, or hold no images.
        ValueError: There are too few images, or `val/` has other classes.
    """
    try:
        return load_class_folders(
            data_root(root) / folder,
            shape=(3, image_size, image_size),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            search_train=search_train,
            search_val=search_val,
            test_images=test_images,
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Name by data_root= or the variable {DATA_VARIABLE} a folder with "
            f"{folder}/train/<class>/<image> and {folder}/val/<class>/<image> in it."
        ) from error


@counted
def load_class_folders(
    folder: str | os.PathLike[str],
    *,
    shape: tuple[int, int, int],
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    search_train: int = 20_000,
    search_val: int = 5_000,
    test_images: int = 50_000,
) -> Splits:
    """Images in folders by class: `<folder>/{train,val}/<class>/<image>`, or without train and val.

    `train/` gives search-train and search-val, evenly spaced through its files; `val/` is test,
    which nothing in a search reads. Where there is no `val/`, test is carved, with a fixed seed and
    as large as search-val, from the images that there are. Where there are fewer images than are
    asked for, the splits shrink in proportion.

    An image that has the size that is asked for is taken as it is. Any other is scaled until it
    covers 8/7 of it, and the middle is cut out (the usual evaluation of ImageNet networks). All
    that is asked for is held in memory: 150 kB per image of 224 x 224.

    Args:
        folder: That holds the images.
        shape: (C, H, W) of the images; 3 channels are colour, 1 is grey.
        mean: Per channel, of pixel / 255; None means that of search-train.
        std: Likewise.
        search_train: Images in search-train, at most.
        search_val: Images in search-val, at most, and in test where that is carved.
        test_images: Images of `val/`, at most.

    Raises:
        FileNotFoundError: There is no such folder, or a class without images.
        ValueError: There are too few images or classes, one cannot be read, or `val/` has other
            classes than `train/`.
    """
    train, val = _folders(Path(folder))
    carved = 1 if val is not None else 2  # parts of search_val images that are carved
    total = search_train + carved * search_val
    everything = _decoded(train.samples, total, shape)
    if len(everything) < FEWEST_PER_CLASS * len(train.classes):
        raise ValueError(
            f"{train.root}: {len(everything)} images in {len(train.classes)} classes are too few; "
            f"at least {FEWEST_PER_CLASS} per class are needed"
        )
    size = max(1, min(search_val, len(everything) * search_val // total))
    if val is None:
        everything, test = carve(everything, size)
    else:
        test = _decoded(val.samples, test_images, shape)
    rest, part = carve(everything, size)
    if mean is None or std is None:
        own_mean, own_std = statistics(rest.images)
        mean, std = mean or own_mean, std or own_std
    return Splits(
        rest,
        part,
        test,
        mean,
        std,
        num_classes=len(train.classes),
        shift=min(shape[1:]) // 8,
        flip=shape[0] == 3,  # photographs; digits and letters change their meaning
    )


def class_names(folder: str | os.PathLike[str]) -> list[str]:
    """The classes of the images in a folder, in the order of their labels.

    Raises:
        FileNotFoundError: As `load_class_folders`.
        ValueError: Likewise.
    """
    return _folders(Path(folder))[0].classes


def _folders(folder: Path) -> tuple[ImageFolder, ImageFolder | None]:
    """What is trained on, and what is tested on if that is a folder of its own."""
    from torchvision.datasets import ImageFolder

    if not folder.is_dir():
        raise FileNotFoundError(f"images: there is no folder {folder}.")
    names = {entry.name for entry in folder.iterdir() if entry.is_dir()}
    if names == {"val"}:
        raise FileNotFoundError(f"images: {folder} has a folder val/, but none train/.")
    nested = "train" in names and names <= {"train", "val", "test"}  # or they are classes
    train = ImageFolder(str(folder / "train" if nested else folder))
    if len(train.classes) < 2:
        raise ValueError(
            f"images: {train.root} has one class, {train.classes[0]!r}; at least 2 are needed, "
            "each a folder of its images"
        )
    if not (nested and "val" in names):
        return train, None
    val = ImageFolder(str(folder / "val"))
    if train.classes != val.classes:
        raise ValueError(f"{folder}: train/ and val/ must have folders of the same names, sorted.")
    return train, val


def _decoded(samples: list[tuple[str, int]], count: int, shape: tuple[int, int, int]) -> Split:
    """At most `count` files, evenly spaced, as uint8 images of `shape`."""
    count = min(count, len(samples))
    chosen = [samples[index * len(samples) // count] for index in range(count)]
    images = torch.empty((count, *shape), dtype=torch.uint8)
    for index, (path, _) in enumerate(chosen):
        images[index] = _image(path, shape)
    return Split(images, torch.tensor([label for _, label in chosen], dtype=torch.int64))


def _image(path: str, shape: tuple[int, int, int]) -> torch.Tensor:
    from PIL import Image

    channels, height, width = shape
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB" if channels == 3 else "L")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"images: {path} cannot be read: {error}") from error
    if picture.size != (width, height):
        scale = max(
            round(wanted * 8 / 7) / side
            for wanted, side in zip((width, height), picture.size, strict=True)
        )
        scaled = (
            max(width, round(picture.width * scale)),
            max(height, round(picture.height * scale)),
        )
        picture = picture.resize(scaled, Image.Resampling.BILINEAR)
        left, top = (picture.width - width) // 2, (picture.height - height) // 2
        picture = picture.crop((left, top, left + width, top + height))
    pixels = torch.from_numpy(np.array(picture))
    return pixels.permute(2, 0, 1) if channels == 3 else pixels[None]
