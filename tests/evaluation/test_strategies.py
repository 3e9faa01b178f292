"""Ways of running candidates: the same results, whichever is chosen and by what clock."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.evaluation import planning
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.execution import CPU_BATCHES
from pruning_env.evaluation.planning import Plan, choose_plan
from pruning_env.evaluation.precision import arithmetic
from pruning_env.evaluation.recovery.batch_norm import leave_as_is, recalibrate_batch_norm
from pruning_env.evaluation.strategies import Masked, Sliced
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.registry import get_task
from tests.helpers.networks import jitter
from tests.helpers.small import small_evaluator, small_model


def masks(graph: ChannelGraph, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [graph.random_keep(share, rng) for share in np.linspace(0.1, 0.9, number)]


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, ChannelGraph, Splits]:
    task = get_task("digits-resnet8")
    model = task.model()
    return model, ChannelGraph.trace(model, task.example_input()), task.load_data(None)


# The same results


@pytest.mark.parametrize("recovery", ["none", "bn"])
def test_masking_in_place_gives_what_slicing_gives(recovery: str, digits: Any) -> None:
    sliced, masked = (
        Evaluator(*digits, recovery=recovery, strategy=name) for name in ("sliced", "masked")
    )
    keeps = masks(digits[1], 4)
    assert masked.plan.strategy == "masked"
    for cut, zeroed in zip(sliced.evaluate_many(keeps), masked.evaluate_many(keeps), strict=True):
        assert zeroed.loss == pytest.approx(cut.loss, rel=1e-4)
        # A tie of two logits within rounding may fall either way.
        assert zeroed.accuracy == pytest.approx(cut.accuracy, abs=1 / 400 + 1e-9)
    assert len({metrics.loss for metrics in masked.evaluate_many(keeps)}) == len(keeps)


@pytest.mark.parametrize("recover", [leave_as_is, recalibrate_batch_norm])
def test_masking_restores_every_tensor(recover: Any) -> None:
    model = small_model()
    jitter(model)
    graph = small_evaluator().graph
    strategy = Masked(graph, model, recover, torch.randn(8, 1, 8, 8))
    with strategy.network(masks(graph, 3)[0]) as candidate:
        changed = [
            name
            for name, tensor in candidate.state_dict().items()
            if not torch.equal(tensor, model.state_dict()[name])
        ]
        assert changed
    for name, tensor in candidate.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_a_failing_candidate_is_restored_as_well() -> None:
    graph, model = small_evaluator().graph, small_model()
    strategy = Masked(graph, model, leave_as_is, torch.zeros(2, 1, 8, 8))
    with pytest.raises(RuntimeError, match="on purpose"):
        with strategy.network(masks(graph, 1)[0]) as candidate:
            raise RuntimeError("on purpose")
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in candidate.state_dict().items()
    )


def test_a_network_with_norms_over_channels_is_sliced_even_when_asked_to_mask() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.GroupNorm(2, 6),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3),
        nn.Flatten(),
        nn.Linear(4 * 36, 4),
    )
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8))
    assert graph.normalised
    images = Split(torch.randn(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64))
    splits = Splits(images, images, images, (0.0,), (1.0,), 4)
    evaluator = Evaluator(model, graph, splits, strategy="masked")
    assert evaluator.plan.strategy == "sliced"
    with pytest.raises(ValueError, match="takes statistics over channels"):
        Masked(graph, model, leave_as_is, images.images)


# The choice


def test_on_a_cpu_the_clock_has_no_say_in_what_an_evaluation_computes(digits: Any) -> None:
    evaluator = Evaluator(*digits)
    assert evaluator.plan == Plan("sliced", *CPU_BATCHES)
    assert evaluator.plan is evaluator.plan
    assert evaluator.evaluations == evaluator.cache_hits == 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluator.plan.batch_size = 3  # type: ignore[misc]


def test_with_everything_given_nothing_is_measured() -> None:
    assert small_evaluator(strategy="sliced", batch_size=7).plan == Plan("sliced", 7)


class _Clocked(nn.Module):
    """Takes time by batch size, and answers differently for one of them."""

    def __init__(self, clock: list[float], seconds: dict[int, float], odd: int) -> None:
        super().__init__()
        self._clock, self._seconds, self._odd = clock, seconds, odd

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self._clock[0] += self._seconds[len(x)]
        return x.flatten(1) + (1e-3 if len(x) == self._odd else 0.0)


def _choose(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float], odd: int = 0) -> Plan:
    clock = [0.0]
    monkeypatch.setattr(planning.time, "perf_counter", lambda: clock[0])

    class Fixed:
        at_once = 1

        def running(self, keeps: Any) -> Any:
            clocked = _Clocked(clock, seconds, odd)
            return nullcontext(lambda images: clocked(images).unsqueeze(0))

    probes = [np.ones(1, dtype=bool)] * 2
    return choose_plan({"sliced": Fixed}, list(seconds), probes, torch.ones(8, 1), 8, 10.0)


def test_the_fastest_trial_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _choose(monkeypatch, {8: 1.0, 4: 0.2, 2: 0.4})  # per batch: 1.0, 0.4, 1.6 in all
    assert (plan.batch_size, [trial.same for trial in plan.trials]) == (4, [True] * 3)


def test_a_trial_that_changes_a_bit_cannot_win(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _choose(monkeypatch, {8: 1.0, 4: 0.2, 2: 0.4}, odd=4)
    assert plan.batch_size == 8
    assert [trial.same for trial in plan.trials] == [True, False, True]


def test_a_small_gain_does_not_change_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _choose(monkeypatch, {8: 1.0, 4: 0.49, 2: 9.0}).batch_size == 8


def test_no_trial_begins_after_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = _choose(monkeypatch, {8: 6.0, 4: 0.1, 2: 0.1})
    assert [trial.batch_size for trial in plan.trials] == [8]


# Arithmetic


def test_tensor_float_is_off_inside_and_as_before_afterwards() -> None:
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    with pytest.raises(RuntimeError, match="on purpose"):
        with arithmetic("float32", torch.device("cpu")):
            assert not matmul.allow_tf32
            assert not cudnn.allow_tf32
            raise RuntimeError("on purpose")
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_bfloat16_moves_accuracies_by_little(digits: Any) -> None:
    exact, rounded = (Evaluator(*digits, precision=name) for name in ("float32", "bfloat16"))
    keeps = masks(digits[1], 4)
    pairs = list(zip(exact.evaluate_many(keeps), rounded.evaluate_many(keeps), strict=True))
    assert all(a.loss != b.loss for a, b in pairs)
    assert all(abs(a.accuracy - b.accuracy) <= 0.02 for a, b in pairs)


@pytest.mark.parametrize("options", [{"strategy": "quick"}, {"precision": "float16"}])
def test_an_unknown_choice_is_refused_with_what_is_allowed(options: dict[str, str]) -> None:
    name = next(iter(options))
    with pytest.raises(ValueError, match=rf"{name}=.*sliced|{name}=.*bfloat16"):
        small_evaluator(**options)


def test_a_sliced_candidate_is_the_callers(digits: Any) -> None:
    model, graph, _ = digits
    strategy = Sliced(graph, model, leave_as_is, torch.zeros(2, 1, 8, 8))
    keep = masks(graph, 2)[0]
    first, second = strategy.candidate(keep), strategy.candidate(keep)
    own = {tensor.data_ptr() for tensor in first.parameters()}
    assert own.isdisjoint(tensor.data_ptr() for tensor in second.parameters())
