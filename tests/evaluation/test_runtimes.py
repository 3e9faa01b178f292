"""What networks are timed in: each runtime computes what the network does."""

import sys

import pytest
import torch
from torch import nn

from pruning_env.evaluation.latency import interleaved_latency, latency_ratio
from pruning_env.evaluation.runtimes import Runtime
from pruning_env.tasks.export import OnnxNetwork


def small_network(width: int = 4) -> nn.Module:
    torch.manual_seed(width)
    return nn.Sequential(
        nn.Conv2d(1, width, 3),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * width, 2),
    ).eval()


@pytest.fixture
def images():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_eager_and_onnxruntime_compute_what_the_network_does_and_are_timed_in_turns(images):
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    model = small_network()
    for name in ("eager", "onnxruntime"):
        runtime = Runtime(name, batch=2, threads=2)
        with runtime.ready([model], images) as ((forward,), batch), torch.inference_mode():
            assert torch.equal(batch, images[:2])
            assert torch.allclose(forward(batch), model(images[:2]), atol=1e-5)
            assert latency_ratio(model, forward, batch).high > 0
            assert (interleaved_latency([model, forward], batch, rounds=3) > 0).all()
    assert isinstance(forward, OnnxNetwork)
    assert forward._session.get_session_options().intra_op_num_threads == 2


@pytest.mark.slow
def test_every_network_is_compiled_by_itself_however_many_there_are(images):
    """More than torch compiles of one piece of code before it gives up."""
    models = [small_network(width) for width in range(2, 12)]
    with Runtime("compiled").ready(models, images) as (forwards, inputs), torch.inference_mode():
        compiled = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        for forward, model in zip(forwards, models, strict=True):
            assert torch.allclose(forward(inputs), model(images[:1]), atol=1e-5)
        assert compiled >= len(models)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compiled


def test_too_few_images_are_repeated_to_fill_a_batch(images):
    with Runtime(batch=7).ready([small_network()], images) as (_, inputs):
        assert torch.equal(inputs, torch.cat([images, images, images])[:7])


def test_torch_has_the_threads_that_were_asked_for_and_then_its_own_again(images):
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError, match="inside"), Runtime(threads=before + 1).ready([], images):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError("inside")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "tvm"}, "runtime='tvm' is unknown; allowed: compiled, eager, onnxruntime"),
        ({"batch": 0}, "batch=0 is not allowed; give an integer of at least 1"),
        ({"threads": 1.5}, "threads=1.5 is not allowed; give an integer of at least 1"),
    ],
)
def test_bad_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        Runtime(**settings)


def test_without_onnxruntime_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for package in ("onnx", "onnxscript"):  # looked for before it
        monkeypatch.setitem(sys.modules, package, sys)
    with pytest.raises(ValueError, match=r"onnxruntime, which is not installed.*\[export\]"):
        Runtime("onnxruntime")


def test_a_network_that_cannot_be_compiled_is_refused_with_the_reason(images):
    class Odd(nn.Module):
        def forward(self, x):
            return x * float(x.sum())  # a number that no capture knows

    with (
        pytest.raises(ValueError, match="runtime='compiled' cannot run the model"),
        Runtime("compiled").ready([Odd().eval()], images),
    ):
        pass
