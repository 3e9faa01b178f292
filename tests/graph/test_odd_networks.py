"""Whole networks with something unusual about them: types, modes, attributes, outputs, failures."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.tracing.context import Trace
from pruning_env.graph.tracing.interpreter import Capture
from tests.helpers.networks import check_pruning, jitter, leaves, worst


class Three(nn.Module):
    """Three convolutions, of 3, 8, 8 and 4 channels, and a forward that may be given."""

    def __init__(self, forward: Callable[[Three, Tensor], object] | None = None) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.c = nn.Conv2d(8, 4, 1)
        self.given = forward

    def forward(self, x: Tensor) -> object:
        return self.given(self, x) if self.given else self.c(self.b(self.a(x).relu()).relu())


def image(*shape: int) -> Tensor:
    return torch.randn(*(shape or (2, 3, 8, 8)), generator=torch.Generator().manual_seed(0))


def traced(network: nn.Module, x: Tensor | None = None) -> tuple[ChannelGraph, dict[str, int]]:
    """The graph of a network in double precision, checked at a mask of one half."""
    network.double().eval()
    jitter(network)
    x = (image() if x is None else x).double()
    graph = ChannelGraph.trace(network, x)
    keep = graph.random_keep(0.5, np.random.default_rng(1))
    check_pruning(graph, network, (x,), keep)
    return graph, {group.name: group.size for group in graph.groups}


class Cosine(nn.Module):
    """Attention of `heads` heads, their number in the code, that compares directions of queries."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.proj = (
            heads,
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.up, self.down = nn.Linear(width, 6), nn.Linear(6, width)

    def forward(self, x: Tensor) -> Tensor:
        n, places, width = x.shape
        parts = self.qkv(x).reshape(n, places, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.proj(y.transpose(1, 2).reshape(n, places, width))
        return x + self.down(self.up(x).relu())


def test_views_at_one_place_of_a_repeated_block_are_reread_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flips: list[int] = []
    read = Capture.trace

    def counted(capture: Capture, flipped: Collection[str] = ()) -> Trace:
        flips.append(len(flipped))
        return read(capture, flipped)

    monkeypatch.setattr(Capture, "trace", counted)
    blocks = nn.Sequential(nn.Linear(5, 8), *(Cosine(8, 2) for _ in range(6)))
    graph = ChannelGraph.trace(blocks, image(1, 4, 5))
    assert [group.name for group in graph.groups] == [f"{i}.up" for i in range(1, 7)]
    # All together; nothing follows, then numbers in attributes do, then they are tied, too.
    assert flips == [0, 6, 6, 6]


def test_a_single_image_without_a_batch_dimension_counts_as_one() -> None:
    batched = ChannelGraph.trace(Three(), image(2, 3, 8, 8))
    single = ChannelGraph.trace(Three(), image(3, 8, 8))
    assert single.sizes.tolist() == batched.sizes.tolist() == [8, 8]
    assert single.macs(single.full()) == batched.macs(batched.full())


def test_half_precision_that_only_another_device_computes_freezes_nothing() -> None:
    def forward(net: Three, x: Tensor) -> Tensor:
        if x.dtype is torch.float16 and not torch.compiler.is_exporting():
            raise RuntimeError("not implemented for Half")
        return net.c(net.b(net.a(x).relu()).relu())

    graph = ChannelGraph.trace(Three(forward).half(), image().half())
    assert graph.sizes.tolist() == [8, 8]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_freezes_nothing(dtype: torch.dtype) -> None:
    network, x = Three().to(dtype), image().to(dtype)
    graph = ChannelGraph.trace(network, x)
    assert graph.sizes.tolist() == [8, 8]
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    with torch.no_grad():
        pruned, masked = graph.prune(network, keep), graph.mask(network, keep)
        assert pruned(x).dtype == dtype
        assert worst(pruned(x).float(), masked(x).float()) < 0.1


def test_parameters_that_take_no_gradient_are_pruned_and_stay_so() -> None:
    network = Three()
    network.b.requires_grad_(False)
    graph = ChannelGraph.trace(network, image())
    pruned = graph.prune(network, graph.random_keep(0.5, np.random.default_rng(0)))
    flags = {name: p.requires_grad for name, p in pruned.named_parameters()}
    assert flags == {name: p.requires_grad for name, p in network.named_parameters()}
    assert graph.sizes.tolist() == [8, 8]


def test_a_layer_of_one_channel_keeps_it() -> None:
    network = Three()
    network.a, network.b = nn.Conv2d(3, 1, 1), nn.Conv2d(1, 8, 1)
    graph, groups = traced(network)
    assert groups == {"b": 8}
    assert graph.frozen["a"] == "coupling leaves a single channel, which has to stay"


@dataclass
class Answer:
    logits: Tensor
    features: Tensor


@dataclass
class Unknown:
    logits: Tensor


torch.export.register_dataclass(Answer)


def test_outputs_may_be_registered_dataclasses_nested_in_anything() -> None:
    def forward(net: Three, x: Tensor) -> object:
        x = net.a(x)
        return {"answer": Answer(net.c(net.b(x)), x), "rest": [None, (x.mean((2, 3)),)]}

    graph, groups = traced(Three(forward))
    assert groups == {"b": 8}
    assert graph.frozen["a"] == "an output of the model"


def test_outputs_of_an_unknown_class_are_refused_with_the_reason() -> None:
    with pytest.raises(ValueError, match=r"cannot capture Three .*Unknown"):
        ChannelGraph.trace(Three(lambda net, x: Unknown(net.c(net.b(net.a(x))))), image())


def test_a_network_that_draws_random_numbers_is_judged_by_its_shapes() -> None:
    network = Three(lambda net, x: net.c(functional.dropout(net.b(net.a(x)))))
    assert ChannelGraph.trace(network.eval(), image()).sizes.tolist() == [8, 8]


def test_a_forward_that_keeps_activations_on_the_module_leaves_no_trace() -> None:
    def forward(net: Three, x: Tensor) -> object:
        net.kept = net.a(x)  # type: ignore[assignment]
        return net.c(net.b(net.kept))

    network = Three(forward)
    graph = ChannelGraph.trace(network, image())
    assert graph.sizes.tolist() == [8, 8]
    assert not hasattr(network, "kept")
    network(image())  # now there is one, a result with a gradient
    pruned = graph.prune(network, graph.random_keep(0.5, np.random.default_rng(0)))
    assert pruned(image()).shape == (2, 4, 8, 8)


def test_parts_of_a_sequential_called_by_slices_are_known_by_their_names() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers = [nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)]
            self.f = nn.Sequential(
                *layers, nn.LayerNorm([8, 8, 8]), nn.Flatten(), nn.Linear(512, 3)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.f[3:](self.f[1:3](self.f[:1](x)))

    graph, groups = traced(Sliced())
    assert groups == {"f.0": 4}
    assert graph.frozen["f.2"] == "channels are mixed by layer_norm in f.3"


def test_a_graph_module_is_traced_like_any_other() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    assert traced(torch.fx.symbolic_trace(layers))[1] == {"0": 8}


def test_checkpoints_and_autocast_are_seen_through() -> None:
    def forward(net: Three, x: Tensor) -> object:
        x = torch.utils.checkpoint.checkpoint(net.a, x, use_reentrant=False)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = net.b(x)
        return net.c(y.to(x.dtype))

    assert ChannelGraph.trace(Three(forward), image()).sizes.tolist() == [8, 8]


def test_what_only_train_mode_uses_holds_its_inputs_where_that_mode_cannot_be_captured() -> None:
    class Auxiliary(Three):
        def __init__(self) -> None:
            super().__init__()
            self.aux = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> object:
            y = self.b(self.a(x).relu())
            if not self.training:
                return self.c(y)
            aux = self.aux(y.mean((2, 3)))
            return self.c(y), aux if aux.sum() > 0 else -aux

    network = Auxiliary().eval()
    graph = ChannelGraph.trace(network, image())
    assert [group.name for group in graph.groups] == ["a"]
    assert "RuntimeError in aux" in graph.frozen["b"]
    assert "cannot capture Auxiliary in train mode" in graph.frozen["aux"]
    pruned = graph.prune(network, graph.random_keep(0.5, np.random.default_rng(0)))
    assert len(leaves(pruned.train()(image()))) == 2


def test_a_fault_is_found_where_it_hardly_shows() -> None:
    """A number of channels in the code of a branch of little weight; rounding does not hide it."""

    def forward(net: Three, x: Tensor) -> Tensor:
        y = net.a(x)
        return net.c(net.b(x.mean(1, keepdim=True) + 1e-2 * y / y.shape[1]))

    graph = ChannelGraph.trace(Three(forward), image())
    assert "(it computes something else)" in graph.frozen["a"]
    assert [group.name for group in graph.groups] == ["b"]


@pytest.mark.parametrize(
    ("forward", "layer", "words"),
    [
        (lambda net, x: _three_parts(net, net.a(x)), "a", "maybe at chunk in the model"),
        (
            lambda net, x: net.c(net.b(net.a(x)[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])])),
            "a",
            "index in the model picks channels by number",
        ),
        (
            lambda net, x: net.c(net.b(net.a(x) * torch.arange(8.0).view(1, 8, 1, 1))),
            "a",
            "meets values that are not channels at mul in the model",
        ),
        (
            lambda net, x: net.c(net.b(net.a(x)).softmax(1)),
            "b",
            "channels compete in softmax in the model",
        ),
        (
            lambda net, x: net.c(net.b(functional.local_response_norm(net.a(x), 3))),
            "a",
            "channels are not where avg_pool3d in the model expects them",
        ),
        (
            lambda net, x: net.c(net.b(net.a(x) / net.a(x).shape[1])),
            "a",
            "its code depends on the number of channels (it computes something else)",
        ),
        (lambda net, x: _checked(net, net.a(x)), "a", "(AssertionError in the model)"),
        (
            lambda net, x: net.c(net.b(net.a(x)) + net.a(x).argmax(1, keepdim=True)),
            "a",
            "channels are reduced by argmax in the model",
        ),
        (lambda net, x: _written(net, net.a(x)), "a", "at copy_ in the model"),
    ],
    ids=["uneven", "index", "constant", "softmax", "neighbours", "width", "assert", "arg", "write"],
)
def test_what_cannot_be_pruned_is_frozen_for_a_reason_that_names_the_operator(
    forward: Callable[[Three, Tensor], object], layer: str, words: str
) -> None:
    graph, groups = traced(Three(forward))
    assert words in graph.frozen[layer]
    left = groups.pop(layer, 0)  # of an uneven chunk two channels may go, and the reason counts
    assert (left > 0) == (f"{8 - left} of 8 channels" in graph.frozen[layer])
    assert groups == {"b" if layer == "a" else "a": 8}


def _three_parts(net: Three, x: Tensor) -> Tensor:
    first, second, third = x.chunk(3, 1)
    return net.c(net.b(torch.cat([third, first, second], 1)))


def _checked(net: Three, x: Tensor) -> Tensor:
    assert x.shape[1] == 8
    return net.c(net.b(x))


def _written(net: Three, x: Tensor) -> Tensor:
    out = x.new_zeros(x.shape)
    out[:, :4] = x[:, :4]
    return net.c(net.b(out))


def test_writing_into_a_tensor_made_like_another_follows_its_channels() -> None:
    def forward(net: Three, x: Tensor) -> object:
        x = net.a(x)
        out = torch.zeros_like(x)
        out[:, :, ::2] = x[:, :, ::2].relu()
        return net.c(net.b(out))

    assert traced(Three(forward))[1] == {"a": 8, "b": 8}


def test_places_picked_by_data_leave_the_channels_free() -> None:
    def forward(net: Three, x: Tensor) -> object:
        x = net.a(x)
        best = x.flatten(2).argmax(-1, keepdim=True)
        return net.c(net.b(x) * x.flatten(2).gather(2, best).unsqueeze(-1))

    assert traced(Three(forward))[1] == {"a": 8}


def test_a_squeeze_without_dimensions_keeps_two_channels() -> None:
    class Squeezing(Three):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 3)

        def forward(self, x: Tensor) -> object:
            return self.fc(self.b(self.a(x)).mean((2, 3), keepdim=True).squeeze())

    graph, groups = traced(Squeezing())
    assert groups == {"a": 8, "b": 6}
    assert graph.frozen["b"].startswith("2 of 8 channels: squeeze in the model")


def test_an_embedding_gates_channels() -> None:
    class Conditioned(Three):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 8)

        def forward(self, x: Tensor, kind: Tensor) -> object:  # type: ignore[override]
            return self.c(self.b(self.a(x)) * self.table(kind)[..., None, None])

    network = Conditioned()
    inputs = (image(), torch.tensor([1, 4]))
    graph = ChannelGraph.trace(network, inputs)
    assert {group.name: group.size for group in graph.groups} == {"a": 8, "b": 8}
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned = graph.prune(network, keep)
    with torch.no_grad():
        assert worst(pruned(*inputs), graph.mask(network, keep)(*inputs)) < 1e-4
    assert pruned.table.embedding_dim == graph.counts(keep)[1]  # type: ignore[union-attr]


def test_matrix_products_without_a_weight_count_the_channels_that_are_left() -> None:
    """The counter sees them; `check_pruning` compares."""

    def forward(net: Three, x: Tensor) -> object:
        mixing = torch.ones(8, 5, dtype=x.dtype)
        return net.c(net.b(net.a(x) @ mixing))

    assert traced(Three(forward))[1] == {"a": 8, "b": 8}


def test_channels_written_into_a_tensor_of_which_there_is_a_view_already_stay() -> None:
    class Viewed(Three):
        def __init__(self) -> None:
            super().__init__()
            self.mask = nn.Parameter(torch.rand(8, 8))

        def forward(self, x: Tensor) -> object:
            x = self.a(x)
            mask = self.mask.expand(x.shape).clone()
            first = mask[:, :4]
            mask.mul_(x)
            return self.c(self.b(mask)) + first

    graph, groups = traced(Viewed())
    assert groups == {"b": 8}
    assert graph.frozen["a"] == "written into another tensor by mul_ in the model"
