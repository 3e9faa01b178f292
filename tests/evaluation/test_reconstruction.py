"""Reconstruction: layers of a pruned network are fitted to what they say in the dense one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.importance.scores import importance_scores
from pruning_env.evaluation.recovery.patches import (
    inputs_at,
    outputs_at,
    places_of,
    set_weights,
    weights_of,
)
from pruning_env.evaluation.recovery.reconstruction import Reconstruction
from pruning_env.evaluation.recovery.ridge import ridge_step
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import load_pruned, save_pruned
from tests.helpers.networks import jitter
from tests.helpers.small import small_evaluator, small_model


def tail(channels: int) -> tuple[nn.Module, ...]:
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4)


def conv(inputs: int, outputs: int, stride: int = 1, groups: int = 1) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, groups=groups)
    return nn.Sequential(layer, nn.ReLU())


class _Widened(nn.Module):
    """The small network on two image channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 1, 1)
        self.rest = small_model()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(x))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(conv(2, 8), conv(8, 6, stride=2), *tail(6)),
    "groups": lambda: nn.Sequential(conv(2, 8), conv(8, 8, groups=2), *tail(8)),
    "depthwise": lambda: nn.Sequential(conv(2, 8), conv(8, 16, groups=8), conv(16, 6), *tail(6)),
    "flatten": lambda: nn.Sequential(conv(2, 8, stride=3), nn.Flatten(), nn.Linear(72, 4)),
    "transposed": lambda: nn.Sequential(
        conv(2, 8, stride=2),
        nn.ConvTranspose2d(8, 6, 3, stride=2, output_padding=1),
        nn.ReLU(),
        *tail(6),
    ),
    "transposed groups": lambda: nn.Sequential(
        conv(2, 8), nn.ConvTranspose2d(8, 8, 3, groups=2), nn.ReLU(), *tail(8)
    ),
    "transposed depthwise": lambda: nn.Sequential(
        conv(2, 8), nn.ConvTranspose2d(8, 16, 3, groups=8), conv(16, 6), *tail(6)
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        *tail(6),
    ),
    "residual sum": _Widened,
}


def network(name: str) -> tuple[nn.Module, ChannelGraph, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = NETWORKS[name]()
        images = torch.randn(128, 2, 8, 8, dtype=torch.float64)
    jitter(model)
    model = model.double().eval()
    return model, ChannelGraph.trace(model, images[:1]), images


def copy_channels(model: nn.Module, graph: ChannelGraph, keep: np.ndarray) -> None:
    """Make every channel that goes a copy of one of its group that stays."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for group in graph.groups:
        here = np.arange(group.start, group.start + group.size)
        stays = here[keep[here]]
        for slot in graph.slots:
            if slot.consumes:
                continue
            for number, channel in enumerate(here[~keep[here]]):
                twin = stays[number % len(stays)]
                given = torch.from_numpy(np.flatnonzero(slot.channels == channel))
                taken = torch.from_numpy(np.flatnonzero(slot.channels == twin))
                if len(given):
                    tensor = tensors[slot.tensor].data
                    tensor.index_copy_(slot.dim, given, tensor.index_select(slot.dim, taken))


def half(graph: ChannelGraph) -> np.ndarray:
    return graph.keep_top(
        graph.rank(np.random.default_rng(1).random(graph.num_channels)),
        np.maximum(1, graph.sizes // 2),
    )


# Oracles


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_that_are_combinations_of_others_go_without_a_trace(name: str) -> None:
    model, graph, images = network(name)
    keep = half(graph)
    copy_channels(model, graph, keep)
    other = torch.randn(
        16, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(9)
    )
    pruned = Reconstruction(graph, model, images).pruned(keep)
    with torch.no_grad():
        dense, rebuilt = model(other), pruned(other)
        cut = graph.prune(model, keep).eval()(other)
    assert (cut - dense).abs().max() > 1e-2 * dense.abs().max()
    assert (rebuilt - dense).abs().max() <= 1e-6 * dense.abs().max()


@pytest.mark.parametrize("name", NETWORKS)
def test_with_everything_kept_nothing_changes(name: str) -> None:
    model, graph, images = network(name)
    pruned = Reconstruction(graph, model, images).pruned(graph.full())
    before = model.state_dict()
    assert all(torch.equal(before[key], tensor) for key, tensor in pruned.state_dict().items())


@pytest.mark.parametrize("name", NETWORKS)
def test_what_runs_before_the_first_cut_keeps_its_weights(name: str) -> None:
    model, graph, images = network(name)
    keep = graph.full()
    last = graph.groups[-1]
    keep[last.start : last.start + last.size // 2] = False
    cut = graph.prune(model, keep).state_dict()
    rebuilt = Reconstruction(graph, model, images).pruned(keep).state_dict()
    changed = {key.rpartition(".")[0] for key in cut if not torch.equal(cut[key], rebuilt[key])}
    assert changed and changed <= set(last.consumers)


def distance(model: nn.Module, candidate: nn.Module, images: torch.Tensor, layer: str) -> float:
    """Of what a layer, none of whose outputs go, says in two networks."""
    said: list[torch.Tensor] = []
    for one in (model, candidate):
        hook = one.get_submodule(layer).register_forward_hook(
            lambda _, __, output: said.append(output.clone())
        )
        with torch.no_grad():
            one(images)
        hook.remove()
    return float((said[0] - said[1]).square().sum())


@pytest.mark.parametrize(
    ("name", "group"),
    [(name, -1) for name in NETWORKS]
    + [(name, 0) for name in ("convolutions", "groups", "flatten", "transposed groups")],
)
def test_a_layer_comes_closer_to_its_outputs_than_without(name: str, group: int) -> None:
    model, graph, images = network(name)
    cut = graph.groups[group]
    keep = graph.full()
    keep[cut.start : cut.start + cut.size // 2] = False
    rebuilt = Reconstruction(graph, model, images).pruned(keep)
    # Batch norms before the cut are as they were, so that re-estimating them changes nothing here.
    pruned = graph.prune(model, keep).eval()
    for reader in cut.consumers:
        before = distance(model, pruned, images, reader)
        assert distance(model, rebuilt, images, reader) < 0.999 * before


def test_the_dense_network_is_left_as_it_was() -> None:
    model, graph, images = network("batch norm")
    before = copy.deepcopy(model.state_dict())
    Reconstruction(graph, model, images).pruned(half(graph))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


# Where it cannot be done


class _Odd(nn.Module):
    """Layers that keep their weights, in turn: reflecting padding, called twice, used by code."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.reflect = nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect")
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.lent = nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.reflect(torch.relu(self.first(x))))
        x = self.twice(torch.relu(self.twice(x)))
        x = nn.functional.conv2d(torch.relu(x), self.lent.weight, self.lent.bias)
        return self.last(torch.relu(x).mean((2, 3)))


def test_layers_that_cannot_be_fitted_keep_their_weights() -> None:
    torch.manual_seed(0)
    model, images = _Odd().eval(), torch.randn(64, 2, 8, 8)
    graph = ChannelGraph.trace(model, images[:1])
    keep = half(graph)
    cut = graph.prune(model, keep).state_dict()
    rebuilt = Reconstruction(graph, model, images).pruned(keep).state_dict()
    changed = {key.rpartition(".")[0] for key in cut if not torch.equal(cut[key], rebuilt[key])}
    assert changed == {"last"}


class _OneNorm(nn.Module):
    """Two layers whose outputs go through the same batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 6, 3, bias=False), nn.Conv2d(6, 6, 3, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.head = nn.Sequential(*tail(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.first(x)))
        return self.head(torch.relu(self.norm(self.second(hidden))))


def test_a_norm_of_several_layers_is_re_estimated_and_holds_no_layers_constant() -> None:
    torch.manual_seed(0)
    model, images = _OneNorm().eval(), torch.randn(16, 2, 9, 9)
    jitter(model)
    graph = ChannelGraph.trace(model, images[:2])
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    fitted = Reconstruction(graph, model, images).pruned(keep)
    again: Any = copy.deepcopy(fitted)
    again.norm.train()
    again.norm.momentum = 1.0
    with torch.no_grad():
        again(images)
    found: Any = fitted.get_submodule("norm").running_mean
    assert not keep.all() and torch.allclose(again.norm.running_mean, found, atol=1e-5)


def test_a_network_whose_values_are_not_finite_keeps_its_weights() -> None:
    model, graph, images = network("convolutions")
    model.get_parameter("0.0.bias").data.fill_(torch.inf)
    keep = half(graph)
    cut = graph.prune(model, keep).state_dict()
    rebuilt = Reconstruction(graph, model, images).pruned(keep).state_dict()
    assert all(torch.equal(cut[key], rebuilt[key]) for key in cut)


# The equations

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(6, 4), (6,)),
    "linear over places": (lambda: nn.Linear(6, 4), (3, 5, 6)),
    "1d": (lambda: nn.Conv1d(6, 4, 3, stride=2, padding=2, dilation=2), (6, 11)),
    "2d": (lambda: nn.Conv2d(6, 4, (3, 2), stride=(1, 2), padding=(0, 1)), (6, 7, 8)),
    "3d": (lambda: nn.Conv3d(6, 4, 2, groups=2), (6, 4, 3, 5)),
    "same": (lambda: nn.Conv2d(6, 4, (4, 3), padding="same", dilation=(1, 2)), (6, 7, 8)),
    "valid": (lambda: nn.Conv2d(6, 4, 3, padding="valid"), (6, 7, 8)),
    "groups": (lambda: nn.Conv2d(6, 9, 3, groups=3, padding=1, bias=False), (6, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(6, 12, 3, groups=6), (6, 5, 5)),
    "transposed 1d": (lambda: nn.ConvTranspose1d(6, 4, 4, stride=3, padding=1), (6, 5)),
    "transposed 2d": (
        lambda: nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, dilation=2),
        (6, 4, 5),
    ),
    "transposed groups": (lambda: nn.ConvTranspose2d(6, 9, 3, groups=3, stride=2), (6, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_inputs_times_weights_are_the_outputs(name: str) -> None:
    torch.manual_seed(1)
    make, shape = LAYERS[name]
    layer: Any = make().double()
    x = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        output = layer(x)
        places = torch.randperm(places_of(layer, output))[:20]
        weights = weights_of(layer)
        product = inputs_at(layer, x, output.shape, places) @ weights
        said = product.transpose(0, 1).flatten(1)
        if layer.bias is not None:
            said = said + layer.bias
    assert torch.allclose(said, outputs_at(layer, output, places), atol=1e-12)
    before = layer.weight.detach().clone()
    set_weights(layer, torch.zeros_like(weights))
    assert not layer.weight.any()
    set_weights(layer, weights)
    assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize(("rows", "inputs"), [(200, 5), (20, 18), (20, 20), (10, 40)])
def test_a_ridge_step_never_leaves_more_than_was_missing(
    rows: int, inputs: int, shifted: bool
) -> None:
    generator = torch.Generator().manual_seed(rows + inputs)
    read = torch.rand(3, rows, inputs, generator=generator, dtype=torch.float64)
    missing = torch.randn(3, rows, 4, generator=generator, dtype=torch.float64)
    step, shift = ridge_step(read, missing, shifted)
    left = (missing - read @ step - shift).square().sum((1, 2))
    assert (left < missing.square().sum((1, 2))).all()
    assert shifted or not shift.any()


@pytest.mark.parametrize(("rows", "inputs"), [(60, 40), (40, 40)])
def test_a_ridge_step_is_the_whole_solution_where_inputs_explain_all(
    rows: int, inputs: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    read = torch.randn(1, rows, inputs, generator=generator, dtype=torch.float64)
    truth = torch.randn(1, inputs, 3, generator=generator, dtype=torch.float64)
    step, shift = ridge_step(read, read @ truth + 2.0, True)
    if rows > inputs:
        assert torch.allclose(step, truth, atol=1e-5)
        assert torch.allclose(shift, torch.full_like(shift, 2.0), atol=1e-5)
    else:  # nothing says that it is not noise
        assert step.norm() < truth.norm()


# How candidates are run, and where the weights go


@pytest.fixture(scope="module")
def digits() -> tuple[Any, ...]:
    task = get_task("digits-resnet8")
    model = task.model()
    return model, ChannelGraph.trace(model, task.example_input()), task.load_data(None)


def masks(graph: ChannelGraph, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [graph.random_keep(share, rng) for share in np.linspace(0.3, 0.7, number)]


@pytest.mark.parametrize("strategy", ["masked", "batched"])
def test_all_strategies_give_the_same(strategy: str, digits: Any) -> None:
    sliced, other = (
        Evaluator(*digits, recovery="reconstruct", strategy=name) for name in ("sliced", strategy)
    )
    keeps = masks(digits[1], 4)
    assert other.plan.strategy == strategy
    # Twice, because a strategy that did not clean up would judge the second time otherwise.
    for chosen in (keeps, keeps[::-1]):
        other._cache.clear()
        for cut, full in zip(
            sliced.evaluate_many(chosen), other.evaluate_many(chosen), strict=True
        ):
            assert full.loss == pytest.approx(cut.loss, rel=1e-4)
            assert full.accuracy == pytest.approx(cut.accuracy, abs=1 / 400 + 1e-9)


def test_reconstructed_networks_are_far_better_than_with_statistics_alone(digits: Any) -> None:
    keeps = masks(digits[1], 4)
    accuracy = {
        name: np.mean([m.accuracy for m in Evaluator(*digits, recovery=name).evaluate_many(keeps)])
        for name in ("bn", "reconstruct")
    }
    assert accuracy["reconstruct"] > accuracy["bn"] + 0.1


def test_the_pruned_model_is_what_was_judged() -> None:
    evaluator = small_evaluator(recovery="reconstruct")
    keep = half(evaluator.graph)
    images, labels = evaluator.images("search-val")
    judged = evaluator.evaluate(keep)
    with torch.no_grad():
        logits = evaluator.pruned_model(keep)(images)
    assert nn.functional.cross_entropy(logits, labels).item() == pytest.approx(judged.loss)
    cut = evaluator.graph.prune(small_model(), keep)
    changed = [
        name
        for (name, a), (_, b) in zip(
            cut.named_parameters(), evaluator.pruned_model(keep).named_parameters(), strict=True
        )
        if not torch.equal(a, b)
    ]
    assert changed


def test_weights_go_with_the_state_to_forks_and_into_files(tmp_path: Path) -> None:
    env = gym.make("CNNPrune-v0", recovery="reconstruct", val_images=100, max_steps=2)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    unwrapped: Any = env.unwrapped
    model = unwrapped.pruned_model()
    fork = unwrapped.fork()
    twin = fork.pruned_model()
    save_pruned(
        tmp_path / "net",
        model,
        unwrapped.graph,
        unwrapped.state().keep,
        architecture="digits-resnet8",
    )
    loaded = load_pruned(tmp_path / "net")
    dense_cut = unwrapped.graph.prune(unwrapped.evaluator._model, unwrapped.state().keep)
    pairs = zip(model.parameters(), dense_cut.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])
        assert torch.equal(tensor, loaded.state_dict()[name])


def test_the_vector_environment_judges_alike() -> None:
    options: dict[str, Any] = {"recovery": "reconstruct", "val_images": 100}
    single = gym.make("CNNPrune-v0", **options)
    vector = gym.make_vec(
        "CNNPrune-v0", num_envs=2, vectorization_mode="vector_entry_point", **options
    )
    single.reset(seed=0)
    vector.reset(seed=0)
    actions = np.stack([single.action_space.sample() for _ in range(2)])
    *_, info = single.step(actions[0])
    *_, infos = vector.step(actions)
    assert infos["accuracy"][0] == info["accuracy"]


# The importance made for it


def test_channels_that_others_explain_go_first_and_not_with_those_that_explain_them() -> None:
    model, graph, images = network("convolutions")
    places = np.arange(graph.num_channels)
    keep = graph.keep_top(graph.rank(-places.astype(float)), graph.sizes - 2)
    copy_channels(model, graph, keep)  # the last two of each group are copies of its first two
    scores = importance_scores("reconstruction", graph, model, images=images)
    for group in graph.groups:
        lost = scores[group.start : group.start + group.size]
        first = set(np.argsort(lost)[:2].tolist())
        pairs = [{0, group.size - 2}, {1, group.size - 1}]
        assert all(len(first & pair) == 1 for pair in pairs)
        assert np.sort(lost)[1] < 1e-2 * np.sort(lost)[2]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_that_can_be_fitted_can_be_ranked(name: str) -> None:
    model, graph, images = network(name)
    scores = importance_scores("reconstruction", graph, model, images=images)
    assert (scores >= 0).all()
    assert scores.max() > 0
    assert np.array_equal(scores, importance_scores("reconstruction", graph, model, images=images))


def test_a_group_that_nothing_can_be_fitted_to_is_named() -> None:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), *tail(4)
    )
    images = torch.randn(4, 2, 8, 8)
    graph = ChannelGraph.trace(model, images[:1])
    with pytest.raises(ValueError, match=r"group '0'.*l1, l2, taylor"):
        importance_scores("reconstruction", graph, model, images=images)
    with pytest.raises(ValueError, match="needs at least one image"):
        importance_scores("reconstruction", graph, model)
