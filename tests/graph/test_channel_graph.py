"""The channel graph against its oracle: a pruned model computes what the masked model computes."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import CifarResNet, CifarVGG, LeNet5
from tests.helpers.networks import jitter, leaves


def resnet(depth: int, shortcut: str) -> Callable[[], nn.Module]:
    return lambda: CifarResNet(depth, shortcut=shortcut)


def zoo(name: str) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None)


# Architecture, input shape.
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vgg16-cifar": (lambda: CifarVGG(16), (2, 3, 32, 32)),
    "vgg11_bn": (zoo("vgg11_bn"), (1, 3, 64, 64)),
    "resnet20-A": (resnet(20, "A"), (2, 3, 32, 32)),
    "resnet20-B": (resnet(20, "B"), (2, 3, 32, 32)),
    "resnet56-A": (resnet(56, "A"), (1, 3, 32, 32)),
    "resnet18": (zoo("resnet18"), (1, 3, 64, 64)),
    "resnet50": (zoo("resnet50"), (1, 3, 64, 64)),
    "googlenet": (zoo("googlenet"), (1, 3, 96, 96)),
    "densenet121": (zoo("densenet121"), (1, 3, 64, 64)),
    "mobilenet_v2": (zoo("mobilenet_v2"), (1, 3, 64, 64)),
    "mobilenet_v3_small": (zoo("mobilenet_v3_small"), (1, 3, 64, 64)),
    "mobilenet_v3_large": (zoo("mobilenet_v3_large"), (1, 3, 64, 64)),
    "lenet": (lambda: LeNet5(), (3, 1, 28, 28)),
}


LARGE = {"vgg11_bn"}  # 133 M parameters: copied in double precision, seconds per test


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in LARGE else []) for n in ARCHITECTURES],
)
def traced(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, ChannelGraph]:
    build, shape = ARCHITECTURES[request.param]
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
        model = build().eval()
    jitter(model)
    example = torch.randn(shape)
    return model, example, ChannelGraph.trace(model, example)


def _worst(given: object, expected: object) -> float:
    pairs = zip(leaves(given), leaves(expected), strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_pruned_model_computes_what_the_masked_model_computes(
    traced: tuple[nn.Module, Tensor, ChannelGraph], ratio: float
) -> None:
    model, example, graph = traced
    keep = graph.random_keep(ratio, np.random.default_rng(int(ratio * 10)))
    double, inputs = _double(model), example.double()
    with torch.no_grad():
        pruned = graph.prune(double, keep)(inputs)
        masked = graph.mask(double, keep)(inputs)
        dense = double(inputs)
    assert _worst(pruned, masked) <= 1e-10
    assert _worst(masked, dense) > 1e-3, "the mask changed nothing, so the comparison is empty"


def test_params_and_macs_equal_counting_on_the_pruned_model(
    traced: tuple[nn.Module, Tensor, ChannelGraph],
) -> None:
    model, example, graph = traced
    masks = [graph.full(), *(graph.random_keep(r, np.random.default_rng(3)) for r in (0.2, 0.7))]
    for keep in masks:
        pruned = graph.prune(model, keep)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            pruned(example)
        assert graph.params(keep) == sum(p.numel() for p in pruned.parameters())
        assert graph.macs(keep) * 2 * len(example) == counter.get_total_flops()
    assert np.asarray(graph.params(np.stack(masks))).tolist() == [graph.params(k) for k in masks]
    assert np.asarray(graph.macs_at(graph.counts(np.stack(masks)))).tolist() == [
        graph.macs(k) for k in masks
    ]


def test_a_pruned_model_trains_a_step(traced: tuple[nn.Module, Tensor, ChannelGraph]) -> None:
    model, example, graph = traced
    pruned = graph.prune(model, graph.random_keep(0.5, np.random.default_rng(0))).train()
    optimiser = torch.optim.SGD(pruned.parameters(), lr=0.1)
    batch = torch.randn(4, *example.shape[1:])
    before = [p.detach().clone() for p in pruned.parameters()]
    sum(leaf.square().mean() for leaf in leaves(pruned(batch))).backward()  # type: ignore[union-attr]
    optimiser.step()
    moved = [not torch.equal(a, b) for a, b in zip(before, pruned.parameters(), strict=True)]
    assert all(p.grad is not None for p in pruned.parameters())
    assert np.mean(moved) > 0.9


def test_tracing_pruning_and_masking_leave_the_model_as_it_was(
    traced: tuple[nn.Module, Tensor, ChannelGraph],
) -> None:
    model, _, graph = traced
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    before = _hash(model)
    modes = [m.training for m in model.modules()]
    pruned, masked = graph.prune(model, keep), graph.mask(model, keep)
    for small in (pruned, masked):
        for parameter in small.parameters():
            parameter.data.fill_(1.0)
    assert _hash(model) == before
    assert [m.training for m in model.modules()] == modes
    assert list(pruned.state_dict()) == list(model.state_dict())
    assert type(pruned) is type(model)


def test_keeping_everything_changes_nothing(
    traced: tuple[nn.Module, Tensor, ChannelGraph],
) -> None:
    model, example, graph = traced
    with torch.no_grad():
        same, masked = graph.prune(model, graph.full()), graph.mask(model, graph.full())
        assert all(map(torch.equal, leaves(same(example)), leaves(model(example))))
        assert all(map(torch.equal, leaves(masked(example)), leaves(model(example))))
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    once, twice = graph.prune(model, keep).state_dict(), graph.prune(same, keep).state_dict()
    assert list(once) == list(twice) and all(map(torch.equal, once.values(), twice.values()))


def test_groups_partition_the_channels(traced: tuple[nn.Module, Tensor, ChannelGraph]) -> None:
    _, _, graph = traced
    starts = [g.start for g in graph.groups]
    assert starts == [0, *np.cumsum(graph.sizes)[:-1]]
    assert graph.num_channels == sum(g.size for g in graph.groups) == len(graph.group_index)
    assert all(g.size > 1 and g.layers for g in graph.groups)
    assert len({g.name for g in graph.groups}) == len(graph.groups)


def _double(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).double()


def _hash(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()


# What is frozen, and why


class Literal(nn.Module):
    """A forward with a number of channels written into it, where no layer's shape shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.free = nn.Conv2d(3, 8, 3, padding=1)
        self.stuck = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stuck(functional.relu(self.free(x))))
        return self.head(x.view(-1, 6 * 16))


def test_a_literal_in_forward_freezes_its_group_and_no_other() -> None:
    graph = ChannelGraph.trace(Literal(), torch.randn(1, 3, 4, 4))
    assert [g.name for g in graph.groups] == ["free"]
    assert "depends on the number of channels" in graph.frozen["stuck"]


def test_outputs_and_what_meets_the_input_are_frozen_with_a_reason() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
            self.head = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.b(self.a(x).relu()) + x)

    graph = ChannelGraph.trace(Net(), torch.randn(1, 3, 4, 4))
    assert [g.name for g in graph.groups] == ["a"]
    assert "add" in graph.frozen["b"] and "not channels" in graph.frozen["b"]
    assert graph.frozen["head"] == "an output of the model"


def test_an_operator_without_a_rule_freezes_what_reaches_it_and_names_itself() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.head = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.linalg.matrix_exp(self.b(self.a(x).relu())))

    graph = ChannelGraph.trace(Net(), torch.randn(1, 3, 4, 4))
    assert [g.name for g in graph.groups] == ["a"]
    assert "matrix_exp" in graph.frozen["b"]


def test_padding_by_functional_code_freezes_the_channels_it_adds() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.head(self.b(x) + functional.pad(x, (0, 0, 0, 0, 2, 2)))

    graph = ChannelGraph.trace(Net(), torch.randn(1, 3, 4, 4))
    assert graph.sizes.tolist() == [4]
    assert graph.frozen["b"].startswith("4 of 8 channels")


def test_option_a_shortcuts_leave_every_channel_removable() -> None:
    graph = ChannelGraph.trace(CifarResNet(8, shortcut="A").eval(), torch.randn(1, 3, 32, 32))
    # One inner group per stage; of the residual stream's 64 channels at the end, 16 are born in the
    # first stage, 16 are padded on in the second and 32 in the third.
    assert sorted(graph.sizes.tolist()) == [16, 16, 16, 32, 32, 64]
    assert list(graph.frozen) == ["linear"]
    assert [a.module for a in graph.widened] == ["layer2.0.shortcut", "layer3.0.shortcut"]


# Bad input


def test_a_model_that_cannot_be_captured_is_refused_with_its_name() -> None:
    class Branches(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match=r"model: torch\.export cannot capture Branches"):
        ChannelGraph.trace(Branches(), torch.randn(1, 3, 4, 4))


def test_another_model_is_refused() -> None:
    graph = ChannelGraph.trace(LeNet5(), torch.randn(1, 1, 28, 28))
    with pytest.raises(ValueError, match="not the one that was traced"):
        graph.prune(CifarVGG(11), graph.full())


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (np.ones(3, bool), "boolean mask of"),
        (None, "boolean mask of"),
        ("empty group", "nothing is left of"),
    ],
)
def test_a_bad_mask_is_refused(keep: object, message: str) -> None:
    model = LeNet5()
    graph = ChannelGraph.trace(model, torch.randn(1, 1, 28, 28))
    mask = graph.full()
    if keep is None:
        mask = mask.astype(np.int64)
    elif isinstance(keep, np.ndarray):
        mask = keep
    else:
        mask[graph.group_index == 0] = False
    for surgery in (graph.prune, graph.mask):
        with pytest.raises(ValueError, match=message):
            surgery(model, mask)


def test_ranking_and_counting_are_inverse() -> None:
    graph = ChannelGraph.trace(LeNet5(), torch.randn(1, 1, 28, 28))
    rng = np.random.default_rng(0)
    scores = rng.normal(size=graph.num_channels)
    rank = graph.rank(scores)
    counts = rng.integers(1, graph.sizes + 1)
    keep = graph.keep_top(rank, counts)
    assert graph.counts(keep).tolist() == counts.tolist()
    for group in graph.groups:
        here = slice(group.start, group.start + group.size)
        kept, gone = scores[here][keep[here]], scores[here][~keep[here]]
        assert not gone.size or kept.min() > gone.max()
