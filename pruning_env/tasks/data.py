"""Labelled images in three disjoint splits, held as plain tensors.

Reads the data sets (scikit-learn's digits, CIFAR and MNIST through torchvision, `<name>.npz` files
for anything else) and carves search-train and search-val out of the training images with a fixed
seed: search-train is what scores and statistics are computed on, search-val is what rewards are
computed on, and test is for reports only. Knows nothing of models, pruning or environments.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruning_env.tasks.loads import counted

__all__ = [
    "CACHE_ROOT",
    "DATA_VARIABLE",
    "Split",
    "Splits",
    "carve",
    "data_root",
    "load_cifar10",
    "load_cifar100",
    "load_digits8",
    "load_mnist",
    "load_npz",
    "statistics",
]

DATA_VARIABLE = "PRUNING_ENV_DATA"
"""Environment variable that names the data root when no argument does."""


def _cache_root() -> Path:
    try:
        return Path.home() / ".cache" / "pruning-env"
    except RuntimeError:  # a user without a home, as numbered ones in containers are
        return Path(tempfile.gettempdir()) / "pruning-env"


CACHE_ROOT = _cache_root()
"""Where downloads go, and where data is looked for when neither argument nor variable is set."""

SPLIT_SEED = 2016
"""Seed of every carve. It never changes, so that a result names its images by the split's name."""

DIGITS_SEARCH_VAL = 400
DIGITS_TEST = 397

# What the published CIFAR-10 ResNet checkpoints were trained with (ImageNet's statistics).
CIFAR10_MEAN = (0.485, 0.456, 0.406)
CIFAR10_STD = (0.229, 0.224, 0.225)
# Of the 50,000 training images.
CIFAR100_MEAN = (0.5071, 0.4865, 0.4409)
CIFAR100_STD = (0.2673, 0.2564, 0.2762)
MNIST_MEAN = (0.1307,)
MNIST_STD = (0.3081,)

_NAME_A_ROOT = f"Pass as data root (data_root= in gym.make), or set {DATA_VARIABLE} to, a folder"


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes:
        images: (N, C, H, W), uint8 or float32, as stored (not normalised).
        labels: (N,) int64.
    """

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def evenly_spaced(self, count: int) -> Split:
        """`count` images, or all, at equal distances and in order."""
        total = len(self)
        index = torch.arange(min(count, total)) * total // min(count, total)
        return Split(self.images[index], self.labels[index])


@dataclass(frozen=True)
class Splits:
    """The three disjoint splits of one data set.

    Attributes:
        search_train: For importance scores, batch-norm statistics and training.
        search_val: For rewards, and for every choice between candidates.
        test: For final reports; nothing in a search may read it.
        mean: Per image channel, of pixel / 255 (uint8 images) or of the stored value (float
            images).
        std: As `mean`.
        num_classes: Number of classes; labels lie in [0, num_classes).
        shift: Pixels by which training may shift an image without changing its class.
        flip: Whether training may exchange left and right.
    """

    search_train: Split
    search_val: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    shift: int = 0
    flip: bool = False

    def normalised(
        self,
        split: Split,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> torch.Tensor:
        """The images of `split` as a network takes them.

        Args:
            split: One of the three splits, or any split in the same units.
            device: Where the result lies; the arithmetic is done there.
            dtype: Floating type of the result; half precision is rounded once, at the end.

        Returns:
            (N, C, H, W) tensor, (pixel - mean) / std.
        """
        work = torch.promote_types(dtype, torch.float32)
        # A copy even when nothing is converted: the in-place arithmetic must not reach the split.
        images = split.images.to(device=device, dtype=work, copy=True)
        if not split.images.dtype.is_floating_point:
            images.div_(255)
        shape = (1, len(self.mean), 1, 1)
        images.sub_(torch.tensor(self.mean, dtype=work, device=device).view(shape))
        images.div_(torch.tensor(self.std, dtype=work, device=device).view(shape))
        return images.to(dtype)


def carve(split: Split, size: int, seed: int = SPLIT_SEED) -> tuple[Split, Split]:
    """Cut a stratified part of exactly `size` images out of `split`.

    Every class gives its share, rounded by largest remainder (ties to the lower class), and the
    images are drawn within the class. The result depends on the labels and the seed only.

    Args:
        split: What to cut.
        size: Images in the part cut out, 0 < size < len(split).
        seed: Seed of the draw.

    Returns:
        (rest, part): disjoint, together `split`, each in the original order.

    Raises:
        ValueError: `size` is out of range.
    """
    total = len(split)
    if not 0 < size < total:
        raise ValueError(f"size={size}: must be between 1 and {total - 1}, of {total} images.")
    labels = split.labels.numpy()
    per_class = np.bincount(labels)
    share = per_class * size
    quota = share // total
    by_remainder = np.argsort(-(share % total), kind="stable")
    quota[by_remainder[: size - int(quota.sum())]] += 1

    rng = np.random.default_rng(seed)
    taken = np.zeros(total, dtype=bool)
    for label, count in enumerate(quota):
        members = np.flatnonzero(labels == label)
        taken[rng.permutation(members)[:count]] = True
    part = torch.from_numpy(taken)
    return (
        Split(split.images[~part], split.labels[~part]),
        Split(split.images[part], split.labels[part]),
    )


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """The data root: the argument, else $PRUNING_ENV_DATA, else the download cache."""
    if root is not None:
        return Path(root)
    named = os.environ.get(DATA_VARIABLE)
    return Path(named) if named else CACHE_ROOT


@counted
def load_digits8() -> Splits:
    """The 1,797 handwritten digits of scikit-learn: 8 x 8 pixels, one channel, values 0 to 16.

    Comes with scikit-learn, so nothing is downloaded. 1,000 search-train, 400 search-val and 397
    test images; float32, because the values are counts of set pixels and not 8-bit intensities.
    """
    # Imported where they are used: scikit-learn and torchvision take a second each to import, and a
    # process that works on one data set needs at most one of them.
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.from_numpy(bunch.images.astype(np.float32)).unsqueeze(1)
    everything = Split(images, torch.from_numpy(bunch.target.astype(np.int64)))
    rest, test = carve(everything, DIGITS_TEST)
    search_train, search_val = carve(rest, DIGITS_SEARCH_VAL)
    mean, std = statistics(search_train.images)
    return Splits(search_train, search_val, test, mean, std, num_classes=10, shift=1)


@counted
def load_cifar10(
    root: str | os.PathLike[str] | None = None,
    *,
    search_val: int = 5_000,
    download: bool = False,
) -> Splits:
    """CIFAR-10 (Krizhevsky 2009) through torchvision: 32 x 32 pixels, three channels, uint8.

    Args:
        root: Data root that contains `cifar-10-batches-py/`; None means $PRUNING_ENV_DATA, and if
            that is not set the download cache.
        search_val: Images carved from the 50,000 of the train set for search-val.
        download: Let torchvision download into the cache what is missing there (`root` and the
            variable must be unset: a folder someone named is never written to).

    Returns:
        45,000 / 5,000 / 10,000 images by default; `mean` and `std` are those of the published
        ResNet checkpoints.

    Raises:
        FileNotFoundError: The data is not there.
        ConnectionError: It cannot be downloaded.
        ValueError: A file is damaged, or `download` was asked for together with a root.
    """
    from torchvision.datasets import CIFAR10

    train, test = _torchvision_pair(
        CIFAR10, "CIFAR-10", "cifar-10-batches-py", root, download=download
    )
    rest, part = carve(train, search_val)
    return Splits(rest, part, test, CIFAR10_MEAN, CIFAR10_STD, num_classes=10, shift=4, flip=True)


@counted
def load_cifar100(
    root: str | os.PathLike[str] | None = None,
    *,
    search_val: int = 5_000,
    download: bool = False,
) -> Splits:
    """CIFAR-100 (Krizhevsky 2009) through torchvision, or from `<root>/cifar100.npz`.

    Arguments and errors as in `load_cifar10`; the folder is `cifar-100-python/`. Where that is not
    there, a file `cifar100.npz` as `load_npz` takes it will do. 45,000 / 5,000 / 10,000 images by
    default.
    """
    from torchvision.datasets import CIFAR100

    folder = "cifar-100-python"
    if not download and not (data_root(root) / folder).is_dir():
        if (data_root(root) / "cifar100.npz").is_file():
            stored = load_npz("cifar100", root, search_val=search_val)
            return replace(stored, mean=CIFAR100_MEAN, std=CIFAR100_STD, shift=4, flip=True)
    train, test = _torchvision_pair(CIFAR100, "CIFAR-100", folder, root, download=download)
    rest, part = carve(train, search_val)
    return Splits(
        rest, part, test, CIFAR100_MEAN, CIFAR100_STD, num_classes=100, shift=4, flip=True
    )


@counted
def load_mnist(
    root: str | os.PathLike[str] | None = None,
    *,
    search_val: int = 5_000,
    download: bool = False,
) -> Splits:
    """MNIST (LeCun et al. 1998) through torchvision: 28 x 28 pixels, one channel, uint8.

    Arguments and errors as in `load_cifar10`; the folder is `MNIST/raw/`. 55,000 / 5,000 / 10,000
    images by default.
    """
    from torchvision.datasets import MNIST

    train, test = _torchvision_pair(MNIST, "MNIST", "MNIST/raw", root, download=download)
    rest, part = carve(train, search_val)
    return Splits(rest, part, test, MNIST_MEAN, MNIST_STD, num_classes=10, shift=2)


@counted
def load_npz(
    name: str,
    root: str | os.PathLike[str] | None = None,
    *,
    search_val: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Splits:
    """A data set of the user's own: `<root>/<name>.npz`.

    The file holds `x_train` and `x_test`, (N, H, W, C) or (N, H, W), uint8 or floating, and
    `y_train` and `y_test`, (N,) integers from 0. Nothing in it is unpickled.

    Args:
        name: File name without `.npz`.
        root: Data root; None means $PRUNING_ENV_DATA, and if that is not set the download cache.
        search_val: Images carved from the train set for search-val; None means a tenth.
        mean: Per channel, in the units of `Splits.mean`; None means that of search-train.
        std: Likewise.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or not of this form, or the name is a path.
    """
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"name={name!r}: must be a file name without a folder and without .npz.")
    path = data_root(root) / f"{name}.npz"
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {path} ({_origin(root)}). {_NAME_A_ROOT} with {name}.npz in it: x_train, "
            "x_test (N, H, W, C) and y_train, y_test (N,)."
        )
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in keys}
    except KeyError as error:
        raise ValueError(f"{path}: lacks an array; needed are {', '.join(keys)}.") from error
    except (
        ValueError,
        OSError,
        EOFError,
        AttributeError,  # a lone array, which is no archive (Python 3.10)
        TypeError,  # the same
        MemoryError,  # a damaged header that asks for a huge array
        NotImplementedError,  # or for another compression
        RuntimeError,  # or for a password
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"{path}: not a readable .npz file without objects ({error}).") from error
    train = _split_from_arrays(arrays["x_train"], arrays["y_train"], f"{path}, train")
    test = _split_from_arrays(arrays["x_test"], arrays["y_test"], f"{path}, test")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise ValueError(
            f"{path}: train images are {tuple(train.images.shape[1:])} (C, H, W), test images "
            f"{tuple(test.images.shape[1:])}; they must agree."
        )
    num_classes = int(train.labels.max()) + 1
    if int(test.labels.max()) >= num_classes:
        raise ValueError(
            f"{path}: a test label is {int(test.labels.max())}, but train labels end at "
            f"{num_classes - 1}."
        )
    size = len(train) // 10 if search_val is None else search_val
    if not 0 < size < len(train):
        raise ValueError(
            f"{path}: search_val={size} of {len(train)} train images; allowed: 1 to "
            f"{len(train) - 1}, and a tenth where nothing is given."
        )
    rest, part = carve(train, size)
    own_mean, own_std = statistics(rest.images)
    return Splits(rest, part, test, mean or own_mean, std or own_std, num_classes)


def _origin(root: str | os.PathLike[str] | None) -> str:
    """Where the root in an error message came from."""
    if root is not None:
        return "from the data root argument"
    if os.environ.get(DATA_VARIABLE):
        return f"from {DATA_VARIABLE}"
    return f"no data root was given and {DATA_VARIABLE} is not set"


def _torchvision_pair(
    dataset: Callable[..., Any],
    title: str,
    folder: str,
    root: str | os.PathLike[str] | None,
    *,
    download: bool,
) -> tuple[Split, Split]:
    """Train and test split of a torchvision data set that has `.data` and `.targets`."""
    base = data_root(root)
    if download and base != CACHE_ROOT:
        raise ValueError(
            f"download=True: downloads go to {CACHE_ROOT} only, but the data root is {base} "
            f"({_origin(root)}). Leave both unset to download, or leave download out."
        )
    if not download and not (base / folder).is_dir():
        raise FileNotFoundError(
            f"{title}: no folder {base / folder} ({_origin(root)}). {_NAME_A_ROOT} that "
            f"torchvision reads {title} from; or, with neither, call the loader in "
            "pruning_env.tasks.data once with download=True."
        )
    splits = []
    for train in (True, False):
        try:
            stored = dataset(str(base), train=train, download=download)
        except (
            *(RuntimeError, ValueError, AssertionError, EOFError, OSError),
            pickle.UnpicklingError,  # the format that torchvision wrote MNIST in until 2020
        ) as error:
            if download and isinstance(error, OSError | RuntimeError):
                raise ConnectionError(
                    f"{title}: could not be downloaded into {base}: {error}. {_NAME_A_ROOT} that "
                    f"has {folder} in it, and leave download out."
                ) from error
            raise ValueError(
                f"{title}: the files in {base / folder} ({_origin(root)}) are incomplete or "
                f"damaged: {error}"
            ) from error
        splits.append(
            _split_from_arrays(np.asarray(stored.data), np.asarray(stored.targets), title)
        )
    return splits[0], splits[1]


def _split_from_arrays(images: np.ndarray, labels: np.ndarray, where: str) -> Split:
    """(N, H, W[, C]) images and (N,) labels as a Split; errors begin with `where`."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"{where}: images must be (N, H, W, C) or (N, H, W), got {images.shape}.")
    if images.dtype != np.uint8:
        if not np.issubdtype(images.dtype, np.floating):
            raise ValueError(f"{where}: images must be uint8 or floating, got {images.dtype}.")
        images = images.astype(np.float32)
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{where}: labels must be {len(images)} integers, got {labels.dtype} {labels.shape}."
        )
    if labels.min() < 0:
        raise ValueError(f"{where}: labels must be 0 or more, got {labels.min()}.")
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    return Split(torch.from_numpy(channels_first), torch.from_numpy(labels.astype(np.int64)))


def statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, in the units `Splits.normalised` expects."""
    unit = 1.0 if images.dtype.is_floating_point else 255.0
    # One channel at a time: a float64 copy of a whole uint8 data set would be eight times its size.
    channels = [images[:, channel].double() for channel in range(images.shape[1])]
    mean = tuple(float(channel.mean()) / unit for channel in channels)
    std = tuple(max(float(channel.std(correction=0)) / unit, 1e-8) for channel in channels)
    return mean, std
