"""Pruned models leave Python: through `torch.export`, as ONNX, and back into the tracer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import CifarResNet, LeNet5
from tests.helpers.networks import jitter

Pruned = tuple[nn.Module, Tensor]

NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet": (LeNet5, (1, 1, 28, 28)),
    "resnet20-A": (lambda: CifarResNet(20, shortcut="A"), (1, 3, 32, 32)),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(weights=None), (1, 3, 64, 64)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def pruned(request: pytest.FixtureRequest) -> Pruned:
    build, shape = NETWORKS[request.param]
    model = build().eval()
    jitter(model)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    graph = ChannelGraph.trace(model, example)
    small = graph.prune(model, graph.random_keep(0.5, np.random.default_rng(0)))
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    return small, example


def _close(given: Tensor, expected: Tensor) -> bool:
    return bool((given - expected).abs().max() <= 1e-4 * expected.abs().max())


def test_onnx_runtime_computes_what_the_pruned_model_computes(
    pruned: Pruned, tmp_path: Path
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    model, example = pruned
    path = tmp_path / "pruned.onnx"
    torch.onnx.export(model, (example,), path, dynamo=True, verbose=False)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    other = torch.randn(example.shape, generator=torch.Generator().manual_seed(1))
    for x in (example, other):
        (given,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        with torch.no_grad():
            assert _close(torch.from_numpy(given), model(x))


def test_torch_export_captures_a_pruned_model(pruned: Pruned) -> None:
    model, example = pruned
    program = torch.export.export(model, (example,), strict=False)
    other = torch.randn(example.shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(program.module()(other), model(other))


def test_a_pruned_model_is_traced_and_pruned_again(pruned: Pruned) -> None:
    model, example = pruned
    graph = ChannelGraph.trace(model, example)
    keep = graph.random_keep(0.5, np.random.default_rng(1))
    double, x = copy.deepcopy(model).double(), example.double()
    with torch.no_grad():
        smaller, masked = graph.prune(double, keep)(x), graph.mask(double, keep)(x)
        assert (smaller - masked).abs().max() <= 1e-10 * masked.abs().max()
        assert (masked - double(x)).abs().max() > 1e-3 * masked.abs().max()
    left = sum(p.numel() for p in graph.prune(model, keep).parameters())
    assert left == graph.params(keep) < 0.7 * sum(p.numel() for p in model.parameters())
