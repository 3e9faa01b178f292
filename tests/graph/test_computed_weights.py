"""Layers whose weight `forward` computes: norms of rows, masks, quantisers, every parametrisation.

All are between a layer "a" of 8 channels and a frozen head "c"; the layer in question is "b".
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional, utils
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.tracing.context import Context
from tests.helpers.networks import check_pruning, jitter

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:.*deprecated.*")


class Between(nn.Module):
    def __init__(self, b: nn.Module, out: int) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, padding=1), b, nn.Conv2d(out, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.a(x).relu()).relu())


class Standardised(nn.Conv2d):
    """Weight standardisation, written out (Qiao et al., 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        mean = self.weight.mean((1, 2, 3), keepdim=True)
        variance = self.weight.var((1, 2, 3), keepdim=True)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-5)
        return self._conv_forward(x, weight, self.bias)


class Scaled(nn.Conv2d):
    """Scaled weight standardisation by way of a batch norm, as timm's NFNets have it."""

    def __init__(self, *args: int, **options: int) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.gain, self.scale = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1)), 0.3

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        gain = (self.gain * self.scale).view(-1)
        rows = functional.batch_norm(rows, None, None, gain, training=True, momentum=0.0, eps=1e-6)
        return self._conv_forward(x, rows.reshape_as(self.weight), self.bias)


class Centred(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)


class Positive(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return functional.softplus(weight)


class Quantised(nn.Module):
    scale: Tensor
    zero_point: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.rand(rows) * 0.01 + 0.01)
        self.register_buffer("zero_point", torch.zeros(rows, dtype=torch.int32))

    def forward(self, weight: Tensor) -> Tensor:
        scale = self.scale.float()
        quantised = torch.fake_quantize_per_channel_affine(
            weight.float(), scale, self.zero_point, 0, -127, 127
        )
        return quantised.to(weight.dtype)


def conv(kind: type[nn.Conv2d] = nn.Conv2d, out: int = 12, groups: int = 1) -> nn.Conv2d:
    return kind(8, out, 3, padding=1, groups=groups)


def registered(part: nn.Module) -> nn.Module:
    layer = conv()
    parametrize.register_parametrization(layer, "weight", part)
    return layer


def pruned_by_hooks() -> nn.Module:
    layer = conv()
    prune.random_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    return layer


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, int]]] = {
    "weight norm, by hooks": (lambda: utils.weight_norm(conv()), {"a": 8, "b": 12}),
    "spectral norm, by hooks": (lambda: utils.spectral_norm(conv()), {"a": 8, "b": 12}),
    "weight norm": (lambda: utils.parametrizations.weight_norm(conv()), {"a": 8, "b": 12}),
    "spectral norm": (lambda: utils.parametrizations.spectral_norm(conv()), {"a": 8, "b": 12}),
    "weight norm, transposed": (
        lambda: utils.parametrizations.weight_norm(nn.ConvTranspose2d(8, 12, 3, padding=1)),
        {"a": 8, "b": 12},
    ),
    "mask of torch.nn.utils.prune": (pruned_by_hooks, {"a": 8, "b": 12}),
    "centred": (lambda: registered(Centred()), {"a": 8, "b": 12}),
    "never zero": (lambda: registered(Positive()), {"a": 8, "b": 12}),
    "fake quantisation": (lambda: registered(Quantised(12)), {"a": 8, "b": 12}),
    "standardised": (lambda: conv(Standardised), {"a": 8, "b": 12}),
    "scaled and standardised": (lambda: conv(Scaled), {"a": 8, "b": 12}),
    "scaled and standardised, grouped": (lambda: conv(Scaled, groups=4), {"a": 2, "b": 3}),
    "scaled and standardised, depthwise": (lambda: conv(Scaled, 8, groups=8), {"a": 8}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_computed_weight_is_followed_back_to_its_parameter(name: str) -> None:
    build, expected = CASES[name]
    torch.manual_seed(0)
    layer = build()
    out: int = layer.out_channels  # type: ignore[assignment]
    network = Between(layer, out).double().eval()
    jitter(network)
    inputs = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == expected
    assert graph.frozen == {"c": "an output of the model"}
    for ratio in (0.5, 0.1, 0.9):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        assert check_pruning(graph, network, inputs, keep).effect > 1e-4 or keep.all()
        small = graph.prune(network, keep)
        assert small.b.in_channels == small.a.out_channels  # type: ignore[union-attr]
        assert small.b.out_channels == small.c.in_channels  # type: ignore[union-attr]


def test_rows_are_standardised_over_the_inputs_that_are_kept() -> None:
    """Against the formula, since the masked twin runs the very same layer."""
    torch.manual_seed(0)
    network = Between(conv(Standardised), 12).double().eval()
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    graph = ChannelGraph.trace(network, x)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    inputs, outputs = (torch.from_numpy(keep[graph.group_index == g]) for g in range(2))
    a, b, c = network.a, network.b, network.c
    weight = b.weight[outputs][:, inputs]  # type: ignore[index]
    rows = weight.flatten(1)
    mean, variance = (f(1).view(-1, 1, 1, 1) for f in (rows.mean, rows.var))
    y = functional.conv2d(x, a.weight[inputs], a.bias[inputs], padding=1).relu()  # type: ignore[index]
    weight = (weight - mean) / torch.sqrt(variance + 1e-5)
    y = functional.conv2d(y, weight, b.bias[outputs], padding=1).relu()  # type: ignore[index]
    expected = functional.conv2d(y, c.weight[:, outputs], c.bias)
    torch.testing.assert_close(graph.prune(network, keep)(x), expected, rtol=1e-10, atol=1e-12)


def test_linear_layers_with_computed_weights_are_pruned() -> None:
    norms = utils.parametrizations
    torch.manual_seed(0)
    network = nn.Sequential(
        norms.weight_norm(nn.Linear(6, 16)), nn.ReLU(), norms.spectral_norm(nn.Linear(16, 8))
    )
    network = network.append(nn.Linear(8, 3)).double().eval()
    inputs = (torch.randn(5, 6, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == {"0": 16, "2": 8}
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    check_pruning(graph, network, inputs, keep)
    assert graph.prune(network, keep).get_submodule("2").in_features == keep[:16].sum()


def test_of_a_row_that_is_standardised_two_values_stay() -> None:
    layer = Standardised(8, 12, 1)
    network = Between(layer, 12).double().eval()
    inputs = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == {"a": 6, "b": 12}
    assert graph.frozen["a"] == "2 of 8 channels: var in b needs two values"
    check_pruning(graph, network, inputs, graph.random_keep(0.0, np.random.default_rng(0)))


class Several(nn.Module):
    """Computes a weight from channels in a way that is not per row, or from several layers."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.weight, self.other = (nn.Parameter(torch.randn(12, 8, 3, 3)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "sorted":
            weight = self.weight.sort(1).values
        elif self.how == "constant":
            weight = self.weight * torch.arange(8.0, dtype=x.dtype).view(1, 8, 1, 1)
        elif self.how == "cut":
            weight = self.weight.reshape(2, 6, 8, 3, 3).mean(0)
            weight = torch.cat([weight, weight])
        else:  # both would have to run on the kept channels alone
            weight = self.weight - self.weight.mean(1, keepdim=True) + self.other.exp()
        return functional.conv2d(x, weight, padding=1)


@pytest.mark.parametrize("how", ["sorted", "constant", "cut", "two weights"])
def test_a_weight_that_cannot_be_followed_freezes_what_it_meets(how: str) -> None:
    network = Between(Several(how), 12).double().eval()
    inputs = (torch.randn(1, 3, 8, 8, dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)
    assert "a" in graph.frozen
    if graph.num_channels:
        for ratio in (0.0, 0.5):
            keep = graph.random_keep(ratio, np.random.default_rng(0))
            pruned, masked = graph.prune(network, keep), graph.mask(network, keep)
            torch.testing.assert_close(pruned(*inputs), masked(*inputs), rtol=1e-10, atol=1e-12)


def test_no_label_is_made_per_element_of_a_computed_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cost of labels is that of rows and columns: NFNet-L0 once took 88 s and 3.2 GB."""
    made: list[int] = []
    fresh = Context.fresh

    def counted(self: Context, count: int) -> Tensor:
        made.append(count)
        return fresh(self, count)

    monkeypatch.setattr(Context, "fresh", counted)
    ChannelGraph.trace(Between(conv(Scaled), 12).eval(), torch.randn(1, 3, 8, 8), check=False)
    assert sum(made) <= 100  # rows and columns of three layers; the weight has 864 elements


class Mixed(nn.Module):
    """Its weight is a mixture that depends on the images (Yang et al. 2019, CondConv)."""

    def __init__(self, transposed: bool = False) -> None:
        super().__init__()
        self.apply_weight = functional.conv_transpose2d if transposed else functional.conv2d
        self.shape = (8, 12, 3, 3) if transposed else (12, 8, 3, 3)
        self.experts = nn.Parameter(torch.randn(4, 12 * 8 * 9))

    def forward(self, x: Tensor) -> Tensor:
        shares = x.mean((0, 2, 3))[:4].softmax(0)
        return self.apply_weight(x, (shares @ self.experts).view(self.shape), padding=1)


@pytest.mark.parametrize(
    "layer",
    [
        utils.parametrizations.weight_norm(conv(groups=4)),
        Several("sorted"),
        Mixed(),
        Mixed(transposed=True),
    ],
    ids=["norm", "sorted", "mixed", "mixed, transposed"],
)
def test_macs_of_computed_weights_are_exact(layer: nn.Module) -> None:
    network = Between(layer, 12).eval()
    x = torch.randn(1 if isinstance(layer, Mixed) else 2, 3, 8, 8)
    graph = ChannelGraph.trace(network, x)
    with FlopCounterMode(display=False) as counter:
        network(x)
    assert graph.macs(graph.full()) * 2 * len(x) == counter.get_total_flops()
