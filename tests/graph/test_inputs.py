"""What a model may be traced on, what is said of inputs that do not fit, and layers to ignore."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph


class Flexible(nn.Module):
    """Two convolutions between optional, nested and named inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.norm, self.c = nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)

    def forward(
        self, image: Tensor | dict[str, Tensor], mask: Tensor | None = None, scale: float = 1.0
    ) -> Tensor:
        x = image["image"] if isinstance(image, dict) else image
        x = self.norm(self.b(self.a(x).relu())) * scale
        return self.c(x if mask is None else x * mask)


def image(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        (image(), None),
        ((image(), None), None),
        ((image(), torch.ones(2, 1, 6, 6), 2.0), None),
        ({"image": image()}, None),
        (({"image": image()}, None), {"scale": 3.0}),
        (image(), {"mask": torch.ones(2, 1, 6, 6)}),
        ((), {"image": image(), "mask": None}),
    ],
)
def test_inputs_may_be_none_dicts_numbers_and_named(inputs: Any, named: Any) -> None:
    graph = ChannelGraph.trace(Flexible(), inputs, example_kwargs=named)
    assert graph.sizes.tolist() == [8, 8]
    assert graph.macs(graph.full()) == 36 * (27 * 8 + 64 + 16)


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            image(torch.float64),
            r"got float64 .*; the model's parameters are torch.float32",
        ),
        (image()[:0], r"empty tensor of shape \(0, 3, 6, 6\)"),
        (image()[:, :2], r"Flexible does not accept it in eval mode .*got float32 \(2, 2, 6, 6\)"),
        ((image(), image(), 1.0, 2.0), "Flexible does not accept it"),
        ((), "must hold a tensor, got tuple without one"),
        (None, "must hold a tensor, got NoneType"),
        ((image(), object()), "holds an object of class object"),
    ],
)
def test_inputs_that_do_not_fit_are_refused_in_words(inputs: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChannelGraph.trace(Flexible(), inputs)


def test_the_example_is_left_as_it_was() -> None:
    class InPlace(Flexible):
        def forward(self, image: Tensor, *rest: Any) -> Tensor:  # type: ignore[override]
            return super().forward(image.mul_(2))

    x = image()
    assert ChannelGraph.trace(InPlace(), x).sizes.tolist() == [8, 8]
    assert torch.equal(x, image())


def test_a_model_without_removable_channels_gives_a_graph_without_groups() -> None:
    graph = ChannelGraph.trace(nn.Conv2d(3, 8, 1), image())
    assert graph.num_channels == 0
    assert set(graph.frozen.values()) == {"an output of the model"}


@pytest.mark.parametrize(
    ("ignore", "left"),
    [
        (lambda net: ["a"], ["b"]),
        (lambda net: ["[ab]"], []),
        (lambda net: [nn.BatchNorm2d], ["a"]),
        (lambda net: [net.b, "c"], ["a"]),
        (lambda net: ["c"], ["a", "b"]),
        (lambda net: [nn.Conv2d], []),
        (lambda net: [net], []),
    ],
)
def test_layers_to_ignore_lose_no_outputs(
    ignore: Callable[[Flexible], list[Any]], left: list[str]
) -> None:
    network = Flexible()
    graph = ChannelGraph.trace(network, image(), ignore=ignore(network))
    assert [group.name for group in graph.groups] == left
    pruned = graph.prune(network, graph.random_keep(0.1, np.random.default_rng(0)))
    for name in {"a", "b"} - set(left):
        assert pruned.get_parameter(f"{name}.weight").shape[0] == 8
        assert "is to be ignored" in graph.frozen[name]


@pytest.mark.parametrize(
    ("ignore", "words"),
    [
        (["conv*"], r"ignore holds 'conv\*', which is no module of this Flexible"),
        (["norms"], "similar names: norm"),
        ([nn.Linear], "ignore holds Linear"),
        ([nn.Conv2d(3, 8, 1)], "ignore holds a Conv2d"),
        ([3], "ignore holds 3; allowed are"),
        ("a", "ignore must be a list"),
    ],
)
def test_layers_to_ignore_that_are_not_there_are_refused(ignore: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ChannelGraph.trace(Flexible(), image(), ignore=ignore)


def test_groups_are_selected_by_the_names_of_their_layers() -> None:
    graph = ChannelGraph.trace(Flexible(), image())
    assert graph.select().tolist() == [0, 1]
    assert graph.select(["a"]).tolist() == [0]
    assert graph.select(["norm"]).tolist() == [1]
    assert graph.select(exclude=["norm"]).tolist() == [0]
    assert graph.select(["?"], exclude=["b"]).tolist() == [0]
    with pytest.raises(ValueError, match="include holds 'z', which matches none of a, b, norm"):
        graph.select(["z"])
