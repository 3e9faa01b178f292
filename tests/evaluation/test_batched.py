"""Several candidates in one forward pass: what slicing gives, in bounded memory, and chosen so."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from pruning_env.evaluation import planning
from pruning_env.evaluation.batched import AT_ONCE, Batched
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.metrics import BatchSize, measure, measure_together
from pruning_env.evaluation.planning import Plan, Trial, choose_plan
from pruning_env.evaluation.recovery.batch_norm import leave_as_is, recalibrate_batch_norm
from pruning_env.evaluation.strategies import Sliced, measure_all
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.models import CifarResNet
from pruning_env.tasks.registry import get_task
from tests.helpers.networks import jitter
from tests.helpers.small import small_evaluator, small_model, small_splits


class Depthwise(nn.Module):
    """Depthwise and grouped layers, a tied one, a concatenation, and additions in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.twin = nn.Conv2d(8, 8, 3, padding=1)
        self.tied = self.twin
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.head = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x += self.tied(self.twin(x).relu_()).tanh()
        x = self.depthwise(x).relu_()
        return self.head(torch.cat([x, self.grouped(x).relu()], 1).mean((2, 3)))


class Deciding(nn.Module):
    """What it runs depends on a value, which no batch of networks can share."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.Flatten())
        self.head = nn.Linear(6 * 16, 4)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.body(x)
        return self.head(x) if torch.compiler.is_exporting() or self.scale.item() > 0 else x


def masks(graph: ChannelGraph, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [graph.random_keep(share, rng) for share in np.linspace(0.2, 0.9, number)]


def built(network: str) -> tuple[nn.Module, ChannelGraph, Splits]:
    if network == "digits-resnet8":
        task = get_task(network)
        model, example, splits = task.model(), task.example_input(), task.load_data(None)
        val = splits.search_val
        return (
            model,
            ChannelGraph.trace(model, example),
            Splits(
                splits.search_train.evenly_spaced(96),
                Split(val.images[:60], val.labels[:60]),
                splits.test,
                splits.mean,
                splits.std,
                splits.num_classes,
            ),
        )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        if network == "depthwise":
            model, splits = Depthwise(), small_splits()
        else:
            model = CifarResNet(8, widths=(4, 8, 16))
            images = Split(torch.randn(40, 3, 12, 12), torch.randint(0, 10, (40,)))
            splits = Splits(images, images, images, (0.0,) * 3, (1.0,) * 3, 10)
    jitter(model)
    return model.eval(), ChannelGraph.trace(model, splits.test.images[:1]), splits


NETWORKS = ("digits-resnet8", "cifar-resnet8", "depthwise")


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {name: built(name) for name in NETWORKS}


# The same results


@pytest.mark.parametrize("recovery", ["none", "bn"])
@pytest.mark.parametrize("network", NETWORKS)
def test_several_at_once_are_what_slicing_gives(network: str, recovery: str, networks: Any) -> None:
    model, graph, splits = networks[network]
    recover = {"none": leave_as_is, "bn": recalibrate_batch_norm}[recovery]
    images = splits.normalised(splits.search_val)
    calibration = splits.normalised(splits.search_train)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    keeps = masks(graph, 5)
    sliced = Sliced(graph, model, recover, calibration)
    with Batched(graph, model, recover, calibration).running(keeps) as together:
        with torch.inference_mode():
            given = together(images)
    assert len({str(logits[0].tolist()) for logits in given}) == 5
    for keep, logits in zip(keeps, given, strict=True):
        with torch.inference_mode():
            expected = sliced.candidate(keep)(images)
        assert float((logits - expected).abs().max()) < 1e-4 * float(expected.abs().max())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("recovery", ["none", "bn"])
def test_an_evaluator_that_stacks_judges_as_one_that_slices(recovery: str, networks: Any) -> None:
    sliced, stacked = (
        Evaluator(*networks["digits-resnet8"], recovery=recovery, strategy=name, batch_size=24)
        for name in ("sliced", "batched")
    )
    assert stacked.plan == Plan("batched", 24)
    keeps = masks(sliced.graph, AT_ONCE + 3)
    pairs = zip(sliced.evaluate_many(keeps), stacked.evaluate_many(keeps), strict=True)
    for cut, zeroed in pairs:
        assert zeroed.loss == pytest.approx(cut.loss, rel=1e-4)
        assert zeroed.accuracy == pytest.approx(cut.accuracy, abs=1 / 60 + 1e-9)
    assert stacked.evaluations == len(keeps)
    assert stacked.evaluate(keeps[0]).loss == stacked.evaluate_many(keeps[:1])[0].loss
    certified = [evaluator.certify(keeps[1]) for evaluator in (sliced, stacked)]
    assert certified[1].loss == pytest.approx(certified[0].loss, rel=1e-4)


def test_measuring_together_is_measuring_one_by_one_bit_for_bit() -> None:
    model, splits = small_model(), small_splits()
    images, labels = splits.search_val.images, splits.search_val.labels
    linear = nn.Linear(64, 4)
    linear.weight.data[0, 0] = torch.inf
    other = nn.Sequential(nn.Flatten(), linear)

    def both(batch: torch.Tensor) -> torch.Tensor:
        return torch.stack([model(batch), other(batch)])

    alone = [measure(each, images, labels, 16) for each in (model, other)]
    assert measure_together(both, images, labels, 16) == alone
    logits = model(images)
    assert alone[0].accuracy == float((logits.argmax(1) == labels).double().mean())
    losses = F.cross_entropy(logits, labels, reduction="none").detach().double()
    assert alone[0].loss == pytest.approx(float(losses.mean()), rel=1e-12)
    assert alone[1].accuracy == 0


# Memory


def test_no_more_networks_than_a_chunk_holds_and_no_more_images_than_a_batch() -> None:
    sizes: list[tuple[int, int]] = []

    class Spied(Batched):
        def running(self, keeps: Any) -> Any:
            def outputs(images: torch.Tensor) -> torch.Tensor:
                sizes.append((len(keeps), len(images)))
                return torch.zeros(len(keeps), len(images), 4)

            return nullcontext(outputs)

    evaluator, splits = small_evaluator(), small_splits()
    images, labels = splits.search_val.images, splits.search_val.labels
    strategy = Spied(evaluator.graph, small_model(), leave_as_is, images, at_once=4)
    assert (
        len(measure_all(strategy, masks(evaluator.graph, 10), images, labels, BatchSize(32))) == 10
    )
    assert {number for number, _ in sizes} == {4, 2}
    assert max(number * rows for number, rows in sizes) == 32


def test_a_chunk_that_is_done_leaves_nothing_behind(monkeypatch: Any) -> None:
    evaluator = small_evaluator(strategy="batched", batch_size=16)
    made: list[Any] = []
    original = evaluator.execution.batched._networks

    def noted(keeps: Any) -> Any:
        networks = original(keeps)
        made.append(weakref.ref(networks))
        return networks

    monkeypatch.setattr(evaluator.execution.batched, "_networks", noted)
    gc.disable()
    try:
        evaluator.evaluate_many(masks(evaluator.graph, 9))
        assert len(made) == 2 and not any(networks() for networks in made)
    finally:
        gc.enable()


# The choice


class _Timed:
    """Candidates that take time by strategy, and answer alike unless they are odd."""

    def __init__(self, clock: list[float], seconds: float, at_once: int, odd: bool) -> None:
        self.at_once = at_once
        self._clock, self._seconds, self._odd = clock, seconds, odd

    def running(self, keeps: Any) -> Any:
        def outputs(images: torch.Tensor) -> torch.Tensor:
            self._clock[0] += self._seconds * len(images)
            return images.flatten(1).expand(len(keeps), -1, -1) + self._odd

        return nullcontext(outputs)


def chosen(monkeypatch: Any, stacked: float, *, odd: bool = False, fails: bool = False) -> Plan:
    clock = [0.0]
    monkeypatch.setattr(planning.time, "perf_counter", lambda: clock[0])

    def make_batched() -> Any:
        if fails:
            raise ValueError("torch.vmap cannot run this network")
        return _Timed(clock, stacked, 4, odd)

    strategies: Any = {
        "sliced": lambda: _Timed(clock, 1.0, 1, False),
        "masked": lambda: _Timed(clock, 2.0, 1, False),
        "batched": make_batched,
    }
    return choose_plan(strategies, [8], [np.ones(1, bool)] * 2, torch.ones(8, 1), 8, 1e6)


def test_many_candidates_are_stacked_where_that_is_faster_and_one_is_not(monkeypatch: Any) -> None:
    plan = chosen(monkeypatch, 2.0)
    assert (plan.strategy, plan.batch_size) == ("sliced", 8)
    assert plan.many == Trial("batched", 8, 2.0 * 8 / 4, True, 4)
    assert [trial.strategy for trial in plan.trials] == ["sliced", "masked", "batched"]


@pytest.mark.parametrize("how", [{"stacked": 3.9}, {"stacked": 0.1, "odd": True}])
def test_stacking_that_gains_little_or_answers_otherwise_is_not_chosen(
    how: Any, monkeypatch: Any
) -> None:
    plan = chosen(monkeypatch, **how)
    assert plan.many is None and plan.strategy == "sliced"
    assert plan.trials[-1].strategy == "batched"


def test_what_cannot_be_stacked_is_left_out_of_the_choice(monkeypatch: Any) -> None:
    plan = chosen(monkeypatch, 0.1, fails=True)
    assert plan.many is None and [t.strategy for t in plan.trials] == ["sliced", "masked"]


def test_whole_chunks_run_stacked_and_what_is_left_over_does_not(monkeypatch: Any) -> None:
    evaluator = small_evaluator()
    trial = Trial("batched", 16, 0.1, True, AT_ONCE)
    evaluator.execution.__dict__["plan"] = Plan("sliced", 16, (trial,), trial)
    chunks: list[tuple[str, int]] = []
    for name in ("sliced", "batched"):
        strategy = getattr(evaluator.execution, name)
        original = strategy.running

        def spied(keeps: Any, name: str = name, original: Any = original) -> Any:
            chunks.append((name, len(keeps)))
            return original(keeps)

        monkeypatch.setattr(strategy, "running", spied)
    keeps = masks(evaluator.graph, 2 * AT_ONCE + 2)
    results = evaluator.evaluate_many(keeps)
    assert chunks == [("batched", AT_ONCE)] * 2 + [("sliced", 1)] * 2
    plain = small_evaluator(batch_size=16).evaluate_many(keeps)
    assert [m.loss for m in results] == pytest.approx([m.loss for m in plain], rel=1e-4)


def test_on_a_cpu_automatic_choice_does_not_stack() -> None:
    assert small_evaluator().plan.many is None


# What it cannot do


def test_a_network_that_no_batch_can_share_is_refused_with_the_reason() -> None:
    model = Deciding().eval()
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8))
    evaluator = Evaluator(model, graph, small_splits(), strategy="batched")
    with pytest.raises(
        ValueError, match=r"strategy 'batched': torch.vmap cannot run.*use 'sliced'"
    ):
        evaluator.evaluate(graph.full())


def test_norms_over_channels_are_refused_and_sliced_by_an_evaluator() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(6 * 64, 4)
    ).eval()
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match=r"strategy 'batched'.*takes statistics over channels"):
        Batched(graph, model, leave_as_is, torch.zeros(2, 1, 8, 8))
    evaluator = Evaluator(model, graph, small_splits(), strategy="batched")
    assert evaluator.plan.strategy == "sliced"


def test_a_recovery_that_trains_is_sliced() -> None:
    assert small_evaluator(strategy="batched", recovery="finetune").plan.strategy == "sliced"
