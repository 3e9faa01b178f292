"""Files for other programs: written, read back, run, and refused where they compute otherwise."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pruning_env import ChannelGraph, export, quantise_onnx
from pruning_env.tasks import export as module
from pruning_env.tasks.data import load_digits8
from pruning_env.tasks.export import FORMATS, OPSET, OnnxNetwork
from pruning_env.tasks.registry import get_task

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def small():
    """The digits' network with half of its channels."""
    task = get_task("digits-resnet8")
    dense = task.model()
    graph = ChannelGraph.trace(dense, task.example_input())
    return graph.prune(dense, graph.random_keep(0.5, np.random.default_rng(0)))


@pytest.fixture(scope="module")
def digits():
    splits = load_digits8()
    return splits.normalised(splits.search_val), splits.search_val.labels


@pytest.fixture(scope="module")
def onnx_file(small, tmp_path_factory):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    return export(small, tmp_path_factory.mktemp("onnx") / "small.onnx", SHAPE)


def test_an_onnx_file_computes_what_the_network_does_for_any_batch(onnx_file, small, digits):
    import onnx

    assert onnx_file.opset == OPSET and onnx_file.difference < 1e-4
    assert onnx_file.size == onnx_file.path.stat().st_size
    stored = onnx.load(onnx_file.path)
    assert {each.domain: each.version for each in stored.opset_import}[""] == OPSET
    network = OnnxNetwork(onnx_file.path)
    for count in (1, 7, 100):
        images = digits[0][:count]
        with torch.no_grad():
            assert torch.allclose(network(images), small(images), atol=1e-3)


def test_a_program_of_torch_export_runs_without_this_package(small, digits, tmp_path):
    made = export(small, tmp_path / "small.pt2", SHAPE, format="torch.export")
    program = torch.export.load(made.path).module()
    with torch.no_grad():
        assert torch.allclose(program(digits[0][:7]), small(digits[0][:7]), atol=1e-4)


def test_weights_alone_are_those_of_the_network(small, tmp_path):
    made = export(small, tmp_path / "small.safetensors", SHAPE, format="safetensors")
    stored = load_file(made.path)
    assert made.difference == 0 and made.opset is None
    assert all(torch.equal(stored[name], tensor) for name, tensor in small.state_dict().items())


def test_the_network_is_left_as_it_was(small, tmp_path):
    small.train()
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    export(small, tmp_path / "small.safetensors", SHAPE, format="safetensors")
    assert small.training
    assert all(torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())
    small.eval()


def test_a_file_that_computes_otherwise_is_not_written(small, tmp_path, monkeypatch):
    path = tmp_path / "small.safetensors"
    export(small, path, SHAPE, format="safetensors")
    before = path.read_bytes()
    other = {"safetensors": (".safetensors", lambda *_: lambda x: 1.01 * small(x))}
    monkeypatch.setattr(module, "FORMATS", other)
    with pytest.raises(ValueError, match=r"computes something else.*nothing is written"):
        export(small, path, SHAPE, format="safetensors")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


class Fixed(nn.Module):
    """Takes batches of two only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, -1) if len(x) == 2 else x.flatten(1)[:, :3]


@pytest.mark.parametrize("form", ["onnx", "torch.export"])
def test_what_cannot_be_exported_is_refused(form, tmp_path):
    if form == "onnx":
        pytest.importorskip("onnxscript")
    path = tmp_path / f"fixed{FORMATS[form][0]}"
    with pytest.raises(ValueError, match=f"cannot be exported as {form}"):
        export(Fixed(), path, SHAPE, format=form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "form", "message"),
    [
        ("small.onnx", "tflite", "format='tflite' is unknown"),
        ("small.pt", "torch.export", r"must end in \.pt2 for format='torch.export'"),
    ],
)
def test_wrong_arguments_are_refused(small, tmp_path, name, form, message):
    with pytest.raises(ValueError, match=message):
        export(small, tmp_path / name, SHAPE, format=form)


def test_without_onnx_the_extra_is_named(small, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'pruning-env\[export\]'"):
        export(small, tmp_path / "small.onnx", SHAPE)
    with pytest.raises(ValueError, match="needs onnxruntime"):
        quantise_onnx(tmp_path / "small.onnx", tmp_path / "q.onnx", torch.zeros(1, *SHAPE))


def test_int8_is_smaller_and_nearly_as_right(onnx_file, digits, tmp_path):
    task = get_task("digits-resnet8")
    dense = export(task.model(), tmp_path / "dense.onnx", SHAPE)
    splits = load_digits8()
    calibration = splits.normalised(splits.search_train.evenly_spaced(100))
    path = quantise_onnx(dense.path, tmp_path / "int8.onnx", calibration)
    assert path.stat().st_size < dense.size
    images, labels = digits
    right = [
        float((OnnxNetwork(file)(images).argmax(1) == labels).float().mean())
        for file in (dense.path, path)
    ]
    assert right[0] > 0.97 and right[1] > right[0] - 0.02


def test_what_is_no_network_cannot_be_quantised(onnx_file, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be quantised"):
        quantise_onnx(tmp_path / "bad.onnx", tmp_path / "q.onnx", torch.zeros(1, *SHAPE))
    assert not (tmp_path / "q.onnx").exists()
