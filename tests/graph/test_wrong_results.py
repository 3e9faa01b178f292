"""Code that decides on sizes, draws numbers, hides values or differs in train mode: never wrong.

`y = conv(x)` from 16 to 24 channels, and then something that a trial at one random mask, on the
weights that are there, in eval mode, does not see.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import jitter, leaves, worst


class Net(nn.Module):
    """A stem of 16 channels, a convolution to 24, a step that is given, and a head."""

    def __init__(self, step: Callable[[Net, Tensor, Tensor], Tensor], out: int = 24) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, out, 3, padding=1)
        self.proj, self.head = nn.Conv2d(16, out, 1), nn.Conv2d(out, 4, 1)
        self.step = step

    def forward(self, image: Tensor) -> object:
        x = self.stem(image).relu()
        return self.head(self.step(self, x, self.conv(x)).relu())


def image() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def masks(graph: ChannelGraph) -> list[np.ndarray]:
    """One mask for every other pair of widths of the first two groups, and for all small ones."""
    rank = graph.rank(np.random.default_rng(0).random(graph.num_channels))
    widths = [[1, 2, 3, 4, *range(5, size, 3), size] for size in graph.sizes[:2].tolist()]
    counts = [
        np.concatenate([pair, graph.sizes[2:] // 2]).astype(np.int64)
        for pair in itertools.product(*widths)
    ]
    return [graph.keep_top(rank, count) for count in counts] if graph.groups else []


def error(graph: ChannelGraph, network: nn.Module, x: Tensor) -> float:
    """The worst difference of pruned and masked at any pair of widths."""
    found = 0.0
    with torch.no_grad():
        for keep in masks(graph):
            pruned, masked = graph.prune(network, keep)(x), graph.mask(network, keep)(x)
            assert [y.shape for y in leaves(pruned)] == [y.shape for y in leaves(masked)]
            found = max(found, worst(pruned, masked))
    return found


def prepared(network: nn.Module) -> nn.Module:
    network.double().eval()
    jitter(network)
    return network


STEPS: dict[str, Callable[[Net, Tensor, Tensor], Tensor]] = {
    "project unless alike": lambda n, x, y: y + (x if x.shape == y.shape else n.proj(x)),
    "add if alike": lambda n, x, y: x + y if x.shape == y.shape else y,
    "attributes alike": lambda n, x, y: (
        y + x if n.conv.in_channels == n.conv.out_channels else y + n.proj(x)
    ),
    "wide enough": lambda n, x, y: y * 2 if x.shape[1] >= 4 else y,
    "an even number": lambda n, x, y: y * 2 if y.size(1) % 2 == 0 else y,
    "half of it": lambda n, x, y: y * 2 if y.shape[1] // 2 > 5 else y,
    "twice the other": lambda n, x, y: y * 2 if y.shape[1] > 2 * x.shape[1] else y,
    "by a table": lambda n, x, y: y * {24: 1.0}.get(y.shape[1], 3.0),
    "at most": lambda n, x, y: y * min(y.shape[1], 7),
    "as the module says": lambda n, x, y: y * 2 if n.conv.out_channels == 24 else y,
    "one channel": lambda n, x, y: y * 2 if y.shape[1] == 1 else y,
}


@pytest.mark.parametrize("alive", [(0, 1), (2, 3), (4, 5), (6, 7)])
def test_code_that_decides_on_widths_is_found_where_few_channels_pass_a_relu(
    alive: tuple[int, int],
) -> None:
    """Found by random networks: under the masks that were tried nothing of the input came through.

    Of the convolution's eight channels all but two are zero after the ReLU.
    """
    network = Net(lambda n, x, y: y * 2 if x.shape[1] >= 4 else y, out=8)
    bias = network.conv.bias
    assert bias is not None
    with torch.no_grad():
        bias.fill_(-100.0)
        bias[list(alive)] = 1.0
    prepared(network)
    graph = ChannelGraph.trace(network, image())
    assert "stem" in graph.frozen
    assert error(graph, network, image()) < 1e-10


def test_a_factor_of_the_width_is_found_where_nothing_passes_a_relu() -> None:
    """Found by random networks: nothing is compared, and the trial saw a constant."""
    network = Net(lambda n, x, y: y * x.shape[1] ** -0.5, out=8)
    bias = network.conv.bias
    assert bias is not None
    with torch.no_grad():
        bias.fill_(-100.0)
    prepared(network)
    assert "stem" in ChannelGraph.trace(network, image()).frozen


class ScaledThenNormalised(nn.Module):
    """A factor of the width, and then a layer norm over three channels."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(*(nn.Conv2d(n, 4, 1) for n in (3, 4)))
        self.stem, self.conv = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 3, 1)
        self.norm, self.head = nn.LayerNorm(3), nn.Conv2d(3, 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(self.before(image))
        y = self.conv(x * x.shape[1] ** -0.5).movedim(1, -1)
        return self.head(self.norm(y).movedim(-1, 1))


@pytest.mark.parametrize("seed", range(6))
def test_a_factor_of_the_width_is_found_before_a_layer_norm_over_few_channels(seed: int) -> None:
    """Found by random networks: of one or two channels a layer norm leaves nothing or a sign."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = prepared(ScaledThenNormalised())
    assert "stem" in ChannelGraph.trace(network, image()).frozen


def test_a_root_of_what_is_rectified_is_compared_all_the_same() -> None:
    """Flat activations leak in the trial, but not where only the flat one has finite results."""
    network = prepared(Net(lambda n, x, y: functional.relu(y - 1).sqrt() * x.shape[1]))
    frozen = ChannelGraph.trace(network, image()).frozen
    assert "something else" in frozen["stem"]
    assert "conv" not in frozen


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_code_that_decides_on_widths_is_right_at_every_width(
    step: Callable[[Net, Tensor, Tensor], Tensor],
) -> None:
    network = prepared(Net(step))
    graph = ChannelGraph.trace(network, image())
    assert error(graph, network, image()) < 1e-10
    held = [reason for reason in graph.frozen.values() if "depends on the number" in reason]
    assert held, "nothing is held, so nothing was found"


def test_groups_that_fail_together_only_leave_the_others_free() -> None:
    class Longer(Net):
        def __init__(self) -> None:
            super().__init__(STEPS["project unless alike"])
            self.more = nn.ModuleList(nn.Conv2d(4, n, 1) for n in (20, 12, 28))
            self.back = nn.ModuleList(nn.Conv2d(n, 4, 1) for n in (20, 12, 28))

        def forward(self, image: Tensor) -> object:
            x = super().forward(image)
            for more, back in zip(self.more, self.back, strict=True):
                x = x + back(more(x).relu())  # type: ignore[operator]
            return x

    graph = ChannelGraph.trace(prepared(Longer()), image())
    assert {"more.0", "more.1", "more.2"} <= {group.name for group in graph.groups}


HIDING: dict[str, Callable[[Tensor], object]] = {
    "dropout": lambda y: functional.dropout(y, 0.3),
    "a sample": lambda y: y + torch.randn_like(y) * y.abs(),
    "a draw beside": lambda y: (y, torch.rand(3)),
    "normal": lambda y: torch.normal(y, y.abs() + 1),
    "masked logits": lambda y: y.masked_fill(torch.ones_like(y).tril() == 0, -torch.inf),
    "not a number": lambda y: torch.where(torch.ones_like(y).tril() == 0, torch.nan, y),
    "classes": lambda y: y.flatten(1).argmax(1),
    "best": lambda y: y.flatten(1).topk(3).indices,
    "signs": lambda y: y > 0,
    "rounded": lambda y: (y * 4).round().long(),
}


class Hiding(Net):
    """Scales by a width, and makes that hard to see at the outputs."""

    def __init__(self, hide: Callable[[Tensor], object]) -> None:
        super().__init__(lambda n, x, y: y * y.shape[1] ** -0.5)
        self.hide = hide

    def forward(self, image: Tensor) -> object:
        return self.hide(super().forward(image))  # type: ignore[arg-type]


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
def test_a_factor_that_depends_on_a_width_is_seen_through_what_hides_it(
    hide: Callable[[Tensor], object],
) -> None:
    graph = ChannelGraph.trace(prepared(Hiding(hide)), image())
    assert "conv" in graph.frozen
    assert [group.name for group in graph.groups] == ["stem"]


@pytest.mark.parametrize("hide", HIDING.values(), ids=HIDING)
def test_what_hides_values_does_not_freeze(hide: Callable[[Tensor], object]) -> None:
    network = Hiding(hide)
    network.step = lambda n, x, y: y
    graph = ChannelGraph.trace(prepared(network), image())
    assert [group.name for group in graph.groups] == ["stem", "conv"]


def test_draws_between_layers_freeze_nothing() -> None:
    steps: list[Callable[[Net, Tensor, Tensor], Tensor]] = [
        lambda n, x, y: functional.dropout(y),
        lambda n, x, y: functional.dropout2d(y),
        lambda n, x, y: y + torch.rand_like(y),
        lambda n, x, y: y * torch.rand(1, y.shape[1], 1, 1).to(y),
        lambda n, x, y: y * torch.empty_like(y).bernoulli_(0.5),
        lambda n, x, y: functional.rrelu(y, training=True),
    ]
    for step in steps:
        graph = ChannelGraph.trace(prepared(Net(step)), image())
        assert "(it computes something else)" not in str(graph.frozen)


@pytest.mark.parametrize("depth", [10, 20])
@pytest.mark.parametrize("power", [-0.5, -1.0])
def test_a_factor_in_the_first_of_many_layers_is_found_whatever_their_scale(
    depth: int, power: float
) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 16, 3, padding=1)
            self.rest = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(depth))

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            x = x * x.shape[1] ** power
            for layer in self.rest:
                x = layer(x).relu()
            return x

    torch.manual_seed(0)
    graph = ChannelGraph.trace(Deep().eval(), image().float())
    assert "first" in graph.frozen
    assert len(graph.groups) == depth - 1


class OnlyInTraining(Net):
    """Adds something of a written-out width, in train mode only."""

    offset: Tensor

    def __init__(self, how: str) -> None:
        super().__init__(lambda n, x, y: y)
        self.how = how
        self.register_buffer("offset", torch.rand(1, 24, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> object:
        return self.head(self._more(self.conv(self.stem(image).relu())).relu())

    def _more(self, y: Tensor) -> Tensor:
        if not self.training:
            return y
        if self.how == "draw":
            return y + torch.rand(1, 24, 1, 1)
        return y + (self.offset if self.how == "buffer" else torch.ones(1, 24, 1, 1))


@pytest.mark.parametrize("how", ["draw", "buffer", "constant"])
def test_a_pruned_model_runs_in_train_mode_too(how: str) -> None:
    network = OnlyInTraining(how).eval()
    x = image().float()
    graph = ChannelGraph.trace(network, x)
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned, masked = graph.prune(network, keep).train(), graph.mask(network, keep).train()
    torch.manual_seed(0)
    given = pruned(x)
    torch.manual_seed(0)
    assert worst(given, masked(x)) < 1e-5
    assert "stem" in [group.name for group in graph.groups]
    assert not network.training


def test_layers_that_only_train_mode_couples_are_pruned_together() -> None:
    class Coupled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)
            self.d = nn.Conv2d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x), self.b(x)
            if self.training:
                a = a + b
            return self.c(a) + self.d(b)

    network = Coupled().eval()
    graph = ChannelGraph.trace(network, image().float())
    assert [group.layers for group in graph.groups] == [("a", "b")]
