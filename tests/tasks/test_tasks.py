"""Every registered task is whole; names, weights and roots that are wrong are clear errors."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pruning_env.tasks import data
from pruning_env.tasks import registry as tasks
from pruning_env.tasks.image_folders import load_imagefolder
from pruning_env.tasks.registry import (
    WEIGHTS_FOLDER,
    get_task,
    imagefolder_task,
    register_task,
    task_names,
)
from pruning_env.tasks.train import evaluate


@pytest.fixture
def own_registry(monkeypatch):
    """Registrations of a test end with it."""
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))


@pytest.mark.parametrize("name", task_names())
def test_every_task_maps_its_example_input_to_one_logit_per_class(name):
    task = get_task(name)
    assert task.name == name
    assert task.summary
    example = task.example_input()
    assert example.shape == (1, *task.input_shape)
    assert example.dtype == torch.float32
    assert torch.equal(example, task.example_input())
    with torch.no_grad():
        classes = 100 if name.startswith("cifar100-") else 10
        assert task.build().eval()(example).shape == (1, classes)


@pytest.mark.parametrize("name", task_names())
def test_every_task_loads_the_weights_file_it_is_given(name, tmp_path):
    task = get_task(name)
    stored = task.build().state_dict()
    save_file(stored, tmp_path / "own.safetensors")
    model = task.model(tmp_path / "own.safetensors")
    assert not model.training
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items())


def test_an_unknown_task_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"task='resnet'.*digits-resnet8.*cifar10-resnet56"):
        get_task("resnet")


def test_a_registered_task_is_found_and_its_name_cannot_be_taken_twice(own_registry):
    mine = replace(get_task("digits-resnet8"), name="mine")
    register_task(mine)
    assert get_task("mine") is mine
    assert task_names()[-1] == "mine"
    with pytest.raises(ValueError, match="'mine': a task of this name is registered already"):
        register_task(mine)
    with pytest.raises(ValueError, match=r"task\.name='': not allowed"):
        register_task(replace(mine, name=""))


def test_the_shipped_digits_weights_are_the_ones_their_row_describes():
    path = WEIGHTS_FOLDER / "digits-resnet8.safetensors"
    row = json.loads(path.with_suffix(".json").read_text())
    content = path.read_bytes()
    assert len(content) < 400_000
    assert hashlib.sha256(content).hexdigest() == row["weights_sha256"]
    task = get_task(row["task"])
    model, splits = task.model(), task.load_data(None)
    # One image of 397 may flip between processors.
    val_accuracy, _ = evaluate(model, splits, splits.search_val)
    assert val_accuracy == pytest.approx(row["val_accuracy"], abs=1.01 / 400)
    test_accuracy, test_loss = evaluate(model, splits, splits.test)
    assert test_accuracy == pytest.approx(row["test_accuracy"], abs=1.01 / 397)
    assert test_loss == pytest.approx(row["test_loss"], rel=1e-3)
    assert test_accuracy >= 0.97


def test_loading_a_task_does_not_move_the_global_random_stream():
    before = torch.get_rng_state()
    get_task("digits-resnet8").model()
    get_task("digits-resnet8").example_input()
    assert torch.equal(torch.get_rng_state(), before)


def test_two_models_of_a_task_share_no_storage():
    task = get_task("digits-resnet8")
    first, second = task.model(), task.model()
    with torch.no_grad():
        first.get_parameter("conv1.weight").zero_()
    assert second.get_parameter("conv1.weight").abs().sum() > 0


def test_a_weights_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights: no file .*absent\.safetensors"):
        get_task("digits-resnet8").model(tmp_path / "absent.safetensors")


def test_weights_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"weights: .* are not those of CifarResNet: .* missing"):
        get_task("cifar10-resnet56").model(WEIGHTS_FOLDER / "digits-resnet8.safetensors")


@pytest.mark.parametrize("named_by", ["argument", "variable"])
def test_cifar10_weights_are_found_under_the_data_root(tmp_path, monkeypatch, named_by):
    task = get_task("cifar10-resnet20")
    root = str(tmp_path) if named_by == "argument" else None
    monkeypatch.setenv("PRUNING_ENV_DATA", "/nowhere" if root else str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"checkpoints holds 0 files.*weights=<file>"):
        task.model(data_root=root)
    stored = task.build().state_dict()
    checkpoint = {"state_dict": {f"module.{name}": tensor for name, tensor in stored.items()}}
    (tmp_path / "checkpoints").mkdir()
    torch.save(checkpoint, tmp_path / "checkpoints" / "resnet20-0000.th")
    loaded = task.model(data_root=root).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())
    torch.save(checkpoint, tmp_path / "checkpoints" / "resnet20-1111.th")
    with pytest.raises(FileNotFoundError, match=r"holds 2 files .* where one is needed"):
        task.model(data_root=root)


def test_cifar10_data_that_is_not_there_names_the_argument(tmp_path):
    with pytest.raises(FileNotFoundError, match="data_root="):
        get_task("cifar10-resnet20").load_data(str(tmp_path))


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "accuracy"),
    # Measured by the publisher's own evaluation and stated with the checkpoints.
    [("cifar10-resnet20", 0.9173), ("cifar10-resnet32", 0.9263), ("cifar10-resnet56", 0.9339)],
)
def test_published_checkpoints_reach_their_accuracy_on_the_10000_test_images(
    name, accuracy, cifar10
):
    measured, _ = evaluate(get_task(name).model(), cifar10, cifar10.test)
    assert measured == pytest.approx(accuracy, abs=1e-4)


@pytest.mark.data
def test_the_published_resnet20_is_right_on_real_test_images(cifar10):
    first = data.Split(cifar10.test.images[:500], cifar10.test.labels[:500])
    measured, _ = evaluate(get_task("cifar10-resnet20").model(), cifar10, first)
    assert measured == pytest.approx(0.9173, abs=0.04)  # three standard errors of 500 images


TRAINED_HERE = [
    name
    for name in task_names()
    if name.startswith("cifar100-") or name in ("cifar10-vgg16", "cifar10-resnet18", "mnist-lenet5")
]


@pytest.mark.parametrize("name", TRAINED_HERE)
def test_weights_that_are_not_trained_yet_name_the_command_that_trains_them(name, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"benchmarks train --task {name} .*weights=<file>"
    ):
        get_task(name).load_weights(torch.nn.Identity(), None, str(tmp_path))
    assert not get_task(name).val_seen


def test_weights_in_the_checkpoints_folder_are_found(tmp_path):
    task = get_task("mnist-lenet5")
    stored = task.build().state_dict()
    (tmp_path / "checkpoints").mkdir()
    save_file(stored, tmp_path / "checkpoints" / "mnist-lenet5.safetensors")
    loaded = task.model(data_root=str(tmp_path)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in stored.items())


def image_folder(root, sizes=((40, 30), (24, 36))):
    generator = np.random.default_rng(0)
    for part, count in (("train", 6), ("val", 3)):
        for label in ("cat", "dog"):
            folder = root / "imagefolder" / part / label
            folder.mkdir(parents=True)
            for number in range(count):
                width, height = sizes[number % len(sizes)]
                pixels = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_torchvision_model_on_a_folder_of_images_is_a_task(own_registry, tmp_path):
    image_folder(tmp_path)
    task = imagefolder_task("resnet18", num_classes=2, image_size=16, search_train=8, search_val=4)
    register_task(task)
    assert get_task("imagefolder-resnet18") is task and task.val_seen
    splits = task.load_data(str(tmp_path))
    assert (len(splits.search_train), len(splits.search_val), len(splits.test)) == (8, 4, 6)
    assert splits.test.images.shape == (6, 3, 16, 16) and splits.num_classes == 2
    assert splits.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert splits.search_val.labels.bincount().tolist() == [2, 2]
    (tmp_path / "checkpoints").mkdir()
    torch.save(task.build().state_dict(), tmp_path / "checkpoints" / "resnet18-0123.pth")
    model = task.model(data_root=str(tmp_path))
    assert model(splits.normalised(splits.test)).shape == (6, 2)


def test_the_middle_of_a_scaled_image_is_taken(tmp_path):
    """A picture whose left half is black and right half white stays so, and is not stretched."""
    image_folder(tmp_path)
    pixels = np.zeros((28, 56, 3), np.uint8)
    pixels[:, 28:] = 255
    first = tmp_path / "imagefolder" / "val" / "cat" / "0.png"
    Image.fromarray(pixels).save(first)
    image = load_imagefolder(str(tmp_path), image_size=14, search_val=2).test.images[0]
    assert (image[:, :, :6] == 0).all() and (image[:, :, 8:] == 255).all()


def test_image_folders_that_are_not_there_or_differ_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="imagefolder/train/<class>/<image>"):
        load_imagefolder(str(tmp_path))
    image_folder(tmp_path)
    (tmp_path / "imagefolder" / "val" / "dog").rename(tmp_path / "imagefolder" / "val" / "fox")
    with pytest.raises(ValueError, match=r"train/ and val/ must have folders of the same names"):
        load_imagefolder(str(tmp_path), search_val=2)
    with pytest.raises(ValueError, match="model='resnet19': torchvision has no such model"):
        imagefolder_task("resnet19")


def test_cifar100_is_read_from_an_npz_file_where_torchvisions_folder_is_not(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(200) % 100
    images = generator.integers(0, 256, (200, 32, 32, 3), dtype=np.uint8)
    np.savez(
        tmp_path / "cifar100.npz", x_train=images, y_train=labels, x_test=images, y_test=labels
    )
    splits = data.load_cifar100(str(tmp_path), search_val=100)
    assert splits.num_classes == 100 and (splits.shift, splits.flip) == (4, True)
    assert splits.search_val.labels.bincount().tolist() == [1] * 100
    assert splits.mean == data.CIFAR100_MEAN
    with pytest.raises(FileNotFoundError, match="CIFAR-100: no folder"):
        data.load_cifar100(str(tmp_path / "elsewhere"))
