"""Images in folders by class, such as ImageNet, as the three splits of a task.

Held in memory as plain tensors, like every data set here (data.py). Knows nothing of models,
pruning or environments.
"""

from __future__ import annotations

import os

import numpy as np
import torch

from pruning_env.tasks.data import DATA_VARIABLE, Split, Splits, carve, data_root
from pruning_env.tasks.loads import counted

__all__ = ["load_imagefolder"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


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
    """Images in folders by class, such as ImageNet: `<root>/<folder>/{train,val}/<class>/<image>`.

    Images are decoded, their short side is scaled to 8/7 of `image_size` and the middle is cut out
    (the usual evaluation of ImageNet networks). All that is asked for is held in memory: 150 kB
    per image of 224 x 224. `train/` gives search-train and search-val, evenly spaced through its
    files; `val/` is test, which nothing in a search reads.

    Args:
        root: Data root; None means $PRUNING_ENV_DATA, and if that is not set the download cache.
        folder: Name of the folder in it.
        image_size: Height and width in pixels.
        search_train: Images of `train/` in search-train, at most.
        search_val: Images of `train/` in search-val.
        test_images: Images of `val/`, at most.

    Raises:
        FileNotFoundError: The folders are not there, or hold no images.
        ValueError: `train/` has too few images, or `val/` other classes.
    """
    from torchvision.datasets import ImageFolder

    base = data_root(root) / folder
    try:
        train, test = ImageFolder(str(base / "train")), ImageFolder(str(base / "val"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{error} Name by data_root= or the variable {DATA_VARIABLE} a folder with "
            f"{folder}/train/<class>/<image> and {folder}/val/<class>/<image> in it."
        ) from error
    if train.classes != test.classes:
        raise ValueError(f"{base}: train/ and val/ must have folders of the same names, sorted.")
    everything = _decoded(train.samples, search_train + search_val, image_size)
    rest, part = carve(everything, search_val)
    return Splits(
        rest,
        part,
        _decoded(test.samples, test_images, image_size),
        IMAGENET_MEAN,
        IMAGENET_STD,
        num_classes=len(train.classes),
        shift=image_size // 8,
        flip=True,
    )


def _decoded(samples: list[tuple[str, int]], count: int, size: int) -> Split:
    """At most `count` files, evenly spaced, as uint8 images of `size` x `size`."""
    from PIL import Image

    count = min(count, len(samples))
    chosen = [samples[index * len(samples) // count] for index in range(count)]
    images = torch.empty((count, 3, size, size), dtype=torch.uint8)
    for index, (path, _) in enumerate(chosen):
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        scale = round(size * 8 / 7) / min(picture.size)
        width, height = (max(size, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - size) // 2, (height - size) // 2
        pixels = np.array(picture.crop((left, top, left + size, top + size)))
        images[index] = torch.from_numpy(pixels).permute(2, 0, 1)
    return Split(images, torch.tensor([label for _, label in chosen], dtype=torch.int64))
