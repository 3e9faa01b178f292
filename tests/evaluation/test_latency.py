"""Latency of models measured in turns."""

import time

import pytest
import torch
from torch import nn

from pruning_env.evaluation.latency import interleaved_latency


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
