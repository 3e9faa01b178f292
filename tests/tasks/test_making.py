"""Tasks made from any model and any images."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pruning_env import ChannelGraph, load_pruned, make_task, save_pruned
from pruning_env.tasks import registry
from pruning_env.tasks.image_folders import load_class_folders
from pruning_env.tasks.networks import build_network, image_format
from pruning_env.tasks.registry import register_task
from pruning_env.tasks.source import Source
from pruning_env.tasks.storage import read_recipe
from tests.helpers.image_files import write_digits, write_network


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def digits(folder):
    return write_digits(folder / "digits")


@pytest.fixture(scope="module")
def network(folder):
    return write_network(folder)


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


SHAPE = (1, 8, 8)


def test_a_model_in_a_file_and_images_in_folders_are_a_task(digits, network):
    model, weights = network
    task = make_task(model, images=digits, weights=weights, input_shape=SHAPE)
    assert task.name == "small_net-on-digits" and task.val_seen
    splits = task.load_data(None)
    assert splits.num_classes == 3 and splits.search_val.images.shape[1:] == SHAPE
    output = task.model()(splits.normalised(splits.test))
    assert output.shape == (len(splits.test), 3)


def test_torchvisions_models_have_as_many_outputs_as_there_are_classes(digits, tmp_path):
    weights = tmp_path / "w.pth"
    torch.save(build_network("squeezenet1_1", 3).state_dict(), weights)
    task = make_task("squeezenet1_1", images=digits, weights=weights, input_shape=(3, 32, 32))
    assert task.model()(task.example_input()).shape == (1, 3)
    assert task.name == "squeezenet1_1-on-digits"


def test_timms_models_say_which_images_they_take(digits, tmp_path):
    pytest.importorskip("timm")
    name = "timm:mobilenetv3_small_050"
    assert image_format(name).shape == (3, 224, 224)
    assert image_format("timm:vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    torch.save(build_network(name, 3).state_dict(), tmp_path / "w.pth")
    task = make_task(name, images=digits, weights=tmp_path / "w.pth", input_shape=(3, 32, 32))
    assert task.name == "mobilenetv3_small_050-on-digits"


def test_without_timm_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"pip install 'pruning-env\[timm\]'"):
        build_network("timm:resnet18")


def test_without_val_test_is_held_out_always_the_same(digits):
    first, second = (load_class_folders(digits, shape=SHAPE) for _ in range(2))
    sizes = [len(split) for split in (first.search_train, first.search_val, first.test)]
    assert sizes == [60, 15, 15]
    assert torch.equal(first.test.images, second.test.images)
    rows = {image.numpy().tobytes() for image in first.test.images}
    assert not rows & {image.numpy().tobytes() for image in first.search_train.images}


def test_an_image_of_the_right_size_is_taken_as_it_is(digits):
    file = sorted((digits / "class1").iterdir())[0]
    pixels = torch.from_numpy(np.array(Image.open(file)))
    splits = load_class_folders(digits, shape=SHAPE)
    everything = torch.cat([splits.search_train.images, splits.search_val.images])
    everything = torch.cat([everything, splits.test.images])
    assert (everything[:, 0] == pixels).all(dim=(1, 2)).any()


def test_images_of_other_sizes_are_scaled_and_not_stretched(digits):
    splits = load_class_folders(digits, shape=(3, 16, 24))
    assert splits.test.images.shape[1:] == (3, 16, 24)


def test_a_class_called_train_is_a_class(tmp_path):
    write_digits(tmp_path)
    (tmp_path / "class0").rename(tmp_path / "train")
    assert load_class_folders(tmp_path, shape=SHAPE).num_classes == 3


def test_val_is_test_where_there_is_one(tmp_path):
    write_digits(tmp_path / "train", 60)
    write_digits(tmp_path / "val", 30)
    splits = load_class_folders(tmp_path, shape=SHAPE)
    sizes = [len(split) for split in (splits.search_train, splits.search_val, splits.test)]
    assert sizes == [48, 12, 30]


def test_an_npz_file_says_the_shape_itself(folder, network):
    splits = load_class_folders(folder / "digits", shape=SHAPE)
    np.savez(
        folder / "digits.npz",
        x_train=splits.search_train.images[:, 0].numpy(),
        y_train=splits.search_train.labels.numpy(),
        x_test=splits.test.images[:, 0].numpy(),
        y_test=splits.test.labels.numpy(),
    )
    model, weights = network
    task = make_task(model, npz=folder / "digits.npz", weights=weights, mean=(0.5,))
    assert task.input_shape == SHAPE and task.load_data(None).mean == (0.5,)
    with pytest.raises(ValueError, match=r"input_shape=\(3, 8, 8\): the images of .* are \(1, 8"):
        make_task(model, npz=folder / "digits.npz", weights=weights, input_shape=(3, 8, 8))


def broken(folder: Path, name: str) -> Path:
    """A copy of the digits with one thing wrong."""
    write_digits(folder, 10 if name == "too few" else 90)
    if name == "one class":
        for other in ("class1", "class2"):
            (folder / other).rename(folder / "class0" / other)
    elif name == "an empty class":
        (folder / "empty").mkdir()
    elif name == "no image":
        (folder / "class0" / "z.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("one class", ValueError, "has one class, 'class0'; at least 2"),
        ("an empty class", FileNotFoundError, "no valid file for the classes empty"),
        ("no image", ValueError, r"z\.png cannot be read"),
        ("too few", ValueError, "10 images in 3 classes are too few; at least 5 per class"),
    ],
)
def test_folders_that_do_not_do_are_refused(tmp_path, network, name, error, message):
    images = broken(tmp_path / "photos", name)
    with pytest.raises(error, match=message):
        make_task(network[0], images=images, weights=network[1], input_shape=SHAPE).load_data(None)


def test_a_folder_without_anything_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="images: there is no folder"):
        make_task("resnet18", images=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Couldn't find any class folder"):
        make_task("resnet18", images=tmp_path)


def other_file(folder):
    path = folder / "other.pth"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet19"}, r"'resnet19' is unknown \(did you mean resnet18"),
        ({"model": "{file}:nothing"}, "has no attribute 'nothing'"),
        ({"model": "/nowhere.py:build"}, "there is no file /nowhere.py"),
        ({"model": "math:pi"}, "is not callable"),
        ({"model": "os:getcwd"}, "returned str, not a torch.nn.Module"),
        ({"weights": None}, "builds a network with random weights; give a file"),
        ({"weights": "{other}"}, "unexpected.*weight"),
        ({"images": None}, "give one of them"),
        ({"input_shape": (2, 8, 8)}, r"\(3, H, W\) in colour, or \(1, H, W\)"),
        ({"input_shape": (3, 8, 8)}, r"does not take images of \(3, 8, 8\)"),
        ({"mean": (0.5, 0.5)}, "mean=.*images have 1 channels"),
        ({"std": (0.0,)}, "must be above 0"),
    ],
)
def test_what_does_not_fit_together_is_refused(digits, network, tmp_path, arguments, message):
    model, weights = network
    file = model.rpartition(":")[0]
    given = {"model": model, "images": digits, "weights": weights, "input_shape": SHAPE}
    for key, value in arguments.items():
        text = isinstance(value, str)
        given[key] = value.format(file=file, other=other_file(tmp_path)) if text else value
    with pytest.raises(ValueError, match=message):
        make_task(given.pop("model"), **given)


def test_a_network_with_other_outputs_than_classes_is_refused(digits, tmp_path):
    file = tmp_path / "fixed.py"
    file.write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n"
        "    torch.manual_seed(3)\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    )
    with pytest.raises(ValueError, match=r"returns \(1, 7\) for one image; needed .* \(1, 3\)"):
        make_task(f"{file}:build", images=digits, input_shape=SHAPE)


def saved(digits, network, path):
    model, weights = network
    task = make_task(model, images=digits, weights=weights, input_shape=SHAPE)
    register_task(task)
    dense = task.model()
    graph = ChannelGraph.trace(dense, task.example_input())
    keep = graph.keep_top(graph.rank(np.zeros(graph.num_channels)), np.array([5, 7]))
    small = graph.prune(dense, keep)
    return save_pruned(path, small, graph, keep, architecture=task.name), small


def test_a_saved_network_says_what_it_was_made_of(digits, network, tmp_path, own_registry):
    path, small = saved(digits, network, tmp_path / "net")
    source = Source.from_json(read_recipe(path).extra["source"])
    assert source.model == network[0] and Path(source.images or "") == digits
    del registry._TASKS["small_net-on-digits"]  # as in another process
    with pytest.raises(ValueError, match=r"made of the code .*small_net\.py:build.*allow_import"):
        load_pruned(path)
    loaded = load_pruned(path, allow_import=True)
    state = small.state_dict()
    assert all(torch.equal(t, state[name]) for name, t in loaded.state_dict().items())


def test_a_damaged_source_is_refused():
    good = Source("resnet18", 2, (3, 8, 8), None, "/a", None, None, None).as_json()
    assert Source.from_json(json.loads(json.dumps(good))).input_shape == (3, 8, 8)
    for key, value in {"model": 3, "num_classes": "2", "input_shape": [1], "images": 4}.items():
        with pytest.raises(ValueError, match="source="):
            Source.from_json({**good, key: value})
    with pytest.raises(ValueError, match="it has the keys"):
        Source.from_json({"model": "resnet18"})
