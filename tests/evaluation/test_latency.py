"""Latency of models measured in turns."""

import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.evaluation import latency
from pruning_env.evaluation.latency import interleaved_latency, latency_ratio, typical_ratio


class Sleeper(nn.Module):
    """Takes a known time and keeps a log of who ran."""

    def __init__(self, seconds, name, log):
        super().__init__()
        self.seconds, self.name, self.log = seconds, name, log

    def forward(self, images):
        self.log.append((self.name, torch.is_inference_mode_enabled()))
        time.sleep(self.seconds)
        return images


def test_each_model_gets_its_own_median():
    log: list[tuple[str, bool]] = []
    models = [Sleeper(0.02, "slow", log), Sleeper(0.005, "fast", log)]
    slow, fast = interleaved_latency(models, torch.zeros(1), rounds=5, warmup=1)
    assert 0.02 <= slow < 0.2
    assert 0.005 <= fast < slow


def test_models_take_turns_in_inference_mode():
    log: list[tuple[str, bool]] = []
    models = [Sleeper(0.0, name, log) for name in "abc"]
    interleaved_latency(models, torch.zeros(1), rounds=2, warmup=1)
    assert "".join(name for name, _ in log) == "abcbcacab"
    assert all(inference for _, inference in log)


def test_one_slow_round_does_not_count():
    class Hiccup(nn.Module):
        calls = 0

        def forward(self, images):
            Hiccup.calls += 1
            time.sleep(0.3 if Hiccup.calls == 3 else 0.001)
            return images

    (seconds,) = interleaved_latency([Hiccup()], torch.zeros(1), rounds=5, warmup=0)
    assert seconds < 0.1


@pytest.mark.parametrize(
    ("models", "rounds", "message"), [([], 3, "models is empty"), ([nn.Identity()], 0, "rounds=0")]
)
def test_nothing_to_measure_is_refused(models, rounds, message):
    with pytest.raises(ValueError, match=message):
        interleaved_latency(models, torch.zeros(1), rounds=rounds)


def clocks(
    monkeypatch: pytest.MonkeyPatch, wall: Any, processor: Any
) -> tuple[nn.Module, nn.Module]:
    """A clock that each pass of model k moves by wall(k) and processor(k) seconds; such models."""
    now = np.zeros(2)

    class Timed(nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = kind

        def forward(self, images):
            now[:] += (wall(self.kind), processor(self.kind))

    monkeypatch.setattr(latency, "_clocks", now.copy)
    return Timed("dense"), Timed("pruned")


def test_a_clear_ratio_takes_the_fewest_rounds(monkeypatch):
    seconds = {"dense": 0.4, "pruned": 0.1}.get
    ratio = latency_ratio(*clocks(monkeypatch, seconds, seconds), torch.zeros(1), limit=0.5)
    assert ratio.low == pytest.approx(0.25) and ratio.high == pytest.approx(0.25)
    assert ratio.rounds == latency.FEWEST_ROUNDS


def test_a_ratio_within_its_spread_of_the_limit_takes_all_rounds_and_is_not_met(monkeypatch):
    rng = np.random.default_rng(0)

    def seconds(kind):
        return 1.0 if kind == "dense" else rng.uniform(0.2, 0.8)

    def constant(kind):
        return 1.0 if kind == "dense" else 0.01

    ratio = latency_ratio(*clocks(monkeypatch, seconds, constant), torch.zeros(1), limit=0.5)
    assert ratio.rounds == latency.MOST_ROUNDS and ratio.low <= 0.5 < ratio.high < 0.7


def test_interruptions_of_the_dense_model_do_not_make_the_pruned_one_faster(monkeypatch):
    """On a busy machine the long pass takes three times as long as it computes."""
    wall, processor = {"dense": 3.0, "pruned": 0.63}.get, {"dense": 1.0, "pruned": 0.63}.get
    ratio = latency_ratio(*clocks(monkeypatch, wall, processor), torch.zeros(1), limit=0.5)
    assert ratio.low == pytest.approx(0.63)


def test_a_processor_clock_that_is_too_coarse_does_not_count(monkeypatch):
    wall = {"dense": 0.4, "pruned": 0.1}.get
    ratio = latency_ratio(*clocks(monkeypatch, wall, lambda kind: 0.0), torch.zeros(1))
    assert ratio.high == pytest.approx(0.25)


def test_the_typical_ratio_is_that_of_the_processor_where_one_thread_computes(monkeypatch):
    wall, processor = {"dense": 3.0, "pruned": 0.3}.get, {"dense": 1.0, "pruned": 0.63}.get
    for threads, expected in ((1, 0.63), (2, 0.1)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        pair = clocks(monkeypatch, wall, processor)
        assert typical_ratio(*pair, torch.zeros(1)) == pytest.approx(expected)


@pytest.mark.parametrize(("seconds", "rounds"), [(1e-5, 100), (0.01, 12)])
def test_the_typical_ratio_takes_more_rounds_of_short_passes(monkeypatch, seconds, rounds):
    calls = []

    def pass_of(kind):
        calls.append(kind)
        return seconds

    typical_ratio(*clocks(monkeypatch, pass_of, lambda kind: 0.0), torch.zeros(1))
    assert len(calls) == 2 * (1 + rounds)


@pytest.mark.parametrize(("threads", "seconds"), [(1, (1.0, 0.63)), (2, (3.0, 0.9))])
def test_a_measured_ratio_comes_with_the_seconds_of_the_steady_clock(monkeypatch, threads, seconds):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    wall, processor = {"dense": 3.0, "pruned": 0.9}.get, {"dense": 1.0, "pruned": 0.63}.get
    ratio = latency_ratio(*clocks(monkeypatch, wall, processor), torch.zeros(1))
    assert (ratio.dense_seconds, ratio.seconds) == pytest.approx(seconds)
