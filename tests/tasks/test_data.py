"""Splits are disjoint, stratified and always the same; data that is not there is a clear error."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning_env.tasks import data
from pruning_env.tasks.data import Split, carve, load_cifar10, load_digits8, load_mnist, load_npz


def numbered(labels: list[int]) -> Split:
    """A split whose images are their own index, so that they can be told apart."""
    images = torch.arange(len(labels), dtype=torch.float32).view(-1, 1, 1, 1)
    return Split(images, torch.tensor(labels))


def ids(split: Split) -> list[int]:
    return split.images.flatten().long().tolist()


def write_npz(path, **changes):
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "x_train": rng.integers(0, 256, (60, 5, 4, 3), dtype=np.uint8),
        "y_train": np.arange(60) % 3,
        "x_test": rng.integers(0, 256, (12, 5, 4, 3), dtype=np.uint8),
        "y_test": np.arange(12) % 3,
    }
    arrays.update(changes)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return arrays


@given(labels=st.lists(st.integers(0, 4), min_size=2, max_size=80), drawn=st.data())
@settings(deadline=None)
def test_carve_cuts_exactly_the_size_in_proportion_to_the_classes(labels, drawn):
    size = drawn.draw(st.integers(1, len(labels) - 1))
    rest, part = carve(numbered(labels), size, seed=drawn.draw(st.integers(0, 9)))
    assert len(part) == size
    assert sorted(ids(rest) + ids(part)) == list(range(len(labels)))
    for piece in (rest, part):
        assert ids(piece) == sorted(ids(piece))
        assert piece.labels.tolist() == [labels[i] for i in ids(piece)]
    for label in set(labels):
        share = size * labels.count(label) / len(labels)
        assert abs(part.labels.tolist().count(label) - share) < 1


def test_carve_depends_on_the_seed_and_on_nothing_else():
    split = numbered([0, 1] * 50)
    again = replace(split, images=split.images.clone())
    torch.manual_seed(5)
    first = ids(carve(split, 30)[1])
    torch.manual_seed(6)
    assert ids(carve(again, 30)[1]) == first
    assert ids(carve(split, 30, seed=1)[1]) != first


@pytest.mark.parametrize("size", [-1, 0, 10, 11])
def test_carve_refuses_a_size_that_leaves_nothing_on_one_side(size):
    with pytest.raises(ValueError, match=f"size={size}: must be between 1 and 9"):
        carve(numbered([0, 1] * 5), size)


def test_digits_are_three_disjoint_stratified_splits_of_all_1797_images():
    splits = load_digits8()
    parts = (splits.search_train, splits.search_val, splits.test)
    assert [len(part) for part in parts] == [1000, 400, 397]
    from sklearn.datasets import load_digits

    together = torch.cat([part.images for part in parts]).flatten(1).numpy()
    original = load_digits().data.astype(np.float32)
    # No image is in the data set twice, so equal rows mean that no split shares or loses any.
    assert len(np.unique(original, axis=0)) == 1797
    assert np.array_equal(np.unique(together, axis=0), np.unique(original, axis=0))
    everything = torch.cat([part.labels for part in parts]).bincount()
    for part in parts:
        expected = everything * len(part) / 1797
        assert (part.labels.bincount() - expected).abs().max() < 2


def test_digits_images_keep_their_labels():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    label_of = {row.tobytes(): label for row, label in zip(bunch.images, bunch.target, strict=True)}
    test = load_digits8().test
    looked_up = [label_of[image.double().numpy().tobytes()] for image in test.images]
    assert looked_up == test.labels.tolist()


def test_digits_normalised_have_zero_mean_and_unit_deviation_on_search_train():
    splits = load_digits8()
    images = splits.normalised(splits.search_train)
    assert images.dtype == torch.float32
    assert abs(float(images.mean())) < 1e-5
    assert abs(float(images.std(correction=0)) - 1) < 1e-5


def test_normalising_leaves_the_stored_images_alone():
    splits = load_digits8()
    before = splits.test.images.clone()
    splits.normalised(splits.test)
    assert torch.equal(splits.test.images, before)


def test_bytes_are_scaled_to_one_before_mean_and_deviation_are_taken_off(tmp_path):
    arrays = write_npz(tmp_path / "own.npz")
    splits = load_npz("own", tmp_path)
    expected = (arrays["x_test"].astype(np.float64) / 255 - splits.mean) / splits.std
    got = splits.normalised(splits.test, dtype=torch.float64)
    np.testing.assert_allclose(got.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-12, atol=1e-12)
    half = splits.normalised(splits.test, dtype=torch.float16)
    assert half.dtype == torch.float16
    assert (half.double() - got).abs().max() < 2e-3


def test_npz_gives_the_stored_bytes_channels_first_and_the_statistics_of_search_train(tmp_path):
    arrays = write_npz(tmp_path / "own.npz")
    splits = load_npz("own", tmp_path)
    assert [len(s) for s in (splits.search_train, splits.search_val, splits.test)] == [54, 6, 12]
    assert splits.search_val.labels.bincount().tolist() == [2, 2, 2]
    assert splits.num_classes == 3
    assert splits.test.images.dtype == torch.uint8
    assert np.array_equal(splits.test.images.numpy(), arrays["x_test"].transpose(0, 3, 1, 2))
    images = splits.normalised(splits.search_train, dtype=torch.float64)
    assert images.mean((0, 2, 3)).abs().max() < 1e-12
    assert (images.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-12


def test_npz_takes_grey_floating_images_and_a_chosen_search_val(tmp_path):
    rng = np.random.default_rng(1)
    x_train = rng.normal(3.0, 2.0, (60, 5, 4))
    write_npz(tmp_path / "own.npz", x_train=x_train, x_test=x_train[:12])
    splits = load_npz("own", tmp_path, search_val=20)
    assert len(splits.search_val) == 20
    assert splits.test.images.shape == (12, 1, 5, 4)
    assert splits.test.images.dtype == torch.float32
    assert abs(float(splits.normalised(splits.search_train).mean())) < 1e-5


def test_npz_with_a_constant_channel_stays_finite(tmp_path):
    write_npz(tmp_path / "own.npz", x_train=np.full((60, 5, 4, 3), 7, np.uint8))
    splits = load_npz("own", tmp_path)
    assert torch.isfinite(splits.normalised(splits.search_train)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": None}, "lacks an array; needed are x_train, y_train, x_test, y_test"),
        ({"x_train": np.zeros((60, 5), np.uint8)}, r"train: images must be \(N, H, W, C\)"),
        ({"x_train": np.zeros((60, 5, 4, 3), int)}, "images must be uint8 or floating, got int64"),
        ({"y_train": np.zeros(59, int)}, "train: labels must be 60 integers, got int64"),
        ({"y_train": np.zeros(60)}, "train: labels must be 60 integers, got float64"),
        ({"y_train": np.full(60, -1)}, "labels must be 0 or more, got -1"),
        ({"y_test": np.full(12, 3)}, "a test label is 3, but train labels end at 2"),
        ({"x_test": np.zeros((12, 4, 4, 3), np.uint8)}, "they must agree"),
        ({"x_train": np.array([None] * 60)}, "not a readable .npz file without objects"),
    ],
)
def test_npz_of_another_form_is_refused_with_the_path_and_the_reason(tmp_path, changes, message):
    path = tmp_path / "own.npz"
    write_npz(path, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load_npz("own", tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("length", [0, 10, 500, -30])
def test_npz_cut_short_is_refused(tmp_path, length):
    path = tmp_path / "own.npz"
    write_npz(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"not a readable \.npz"):
        load_npz("own", tmp_path)


LOADERS = {
    "cifar-10-batches-py": load_cifar10,
    "MNIST": load_mnist,
    "own.npz": lambda root=None: load_npz("own", root),
}


@pytest.mark.parametrize("sought", LOADERS)
def test_missing_data_names_the_path_and_how_the_root_was_found(tmp_path, monkeypatch, sought):
    load = LOADERS[sought]
    with pytest.raises(FileNotFoundError, match="from the data root argument") as error:
        load(tmp_path / "argument")
    assert str(tmp_path / "argument" / sought) in str(error.value)
    assert "data_root=" in str(error.value)

    monkeypatch.setenv("PRUNING_ENV_DATA", str(tmp_path / "variable"))
    with pytest.raises(FileNotFoundError, match="from PRUNING_ENV_DATA") as error:
        load()
    assert str(tmp_path / "variable" / sought) in str(error.value)

    monkeypatch.delenv("PRUNING_ENV_DATA")
    monkeypatch.setattr(data, "CACHE_ROOT", tmp_path / "cache")
    with pytest.raises(FileNotFoundError, match="PRUNING_ENV_DATA is not set") as error:
        load()
    assert str(tmp_path / "cache" / sought) in str(error.value)


def test_a_download_never_goes_into_a_folder_someone_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"download=True.*from the data root argument"):
        load_cifar10(tmp_path, download=True)
    monkeypatch.setenv("PRUNING_ENV_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"download=True.*from PRUNING_ENV_DATA"):
        load_mnist(download=True)
    assert not list(tmp_path.iterdir())


def test_damaged_cifar10_files_are_named_as_such(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(b"not the original")
    with pytest.raises(ValueError, match="incomplete or damaged") as error:
        load_cifar10(tmp_path)
    assert str(folder) in str(error.value)


def write_mnist(root, count):
    """The digits of scikit-learn in MNIST's file format (IDX), in a corner of 28 x 28 pixels."""
    digits = load_digits8().search_train
    images = np.zeros((count, 28, 28), np.uint8)
    images[:, :8, :8] = digits.images[:count, 0].numpy() * 15
    labels = digits.labels[:count].numpy().astype(np.uint8)
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name in ("train", "t10k"):
        header = struct.pack(">IIII", 2051, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 2049, count)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
    return folder, images, labels


def test_mnist_is_read_from_its_own_file_format(tmp_path):
    _, images, labels = write_mnist(tmp_path, 100)
    splits = load_mnist(tmp_path, search_val=30)
    assert [len(s) for s in (splits.search_train, splits.search_val, splits.test)] == [70, 30, 100]
    assert np.array_equal(splits.test.images[:, 0].numpy(), images)
    assert splits.test.labels.tolist() == labels.tolist()


def test_mnist_cut_short_is_named_as_damaged(tmp_path):
    folder, _, _ = write_mnist(tmp_path, 100)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"MNIST.*incomplete or damaged"):
        load_mnist(tmp_path)


@pytest.mark.data
def test_cifar10_splits_are_disjoint_stratified_and_complete(cifar10):
    parts = (cifar10.search_train, cifar10.search_val, cifar10.test)
    assert [len(part) for part in parts] == [45_000, 5_000, 10_000]
    assert cifar10.search_val.labels.bincount().tolist() == [500] * 10
    assert cifar10.search_train.labels.bincount().tolist() == [4500] * 10
    assert cifar10.test.labels.bincount().tolist() == [1000] * 10
    assert cifar10.search_train.images.dtype == torch.uint8
    seen = {image.tobytes() for image in cifar10.search_train.images.numpy()}
    assert not any(image.tobytes() in seen for image in cifar10.search_val.images.numpy())


@pytest.mark.data
def test_mnist_has_its_published_sizes_and_statistics():
    splits = load_mnist()
    sizes = [len(part) for part in (splits.search_train, splits.search_val, splits.test)]
    assert sizes == [55_000, 5_000, 10_000]
    images = splits.normalised(splits.search_train)
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01
