"""Which strategy and batch size judge candidates, chosen by measurement.

The clock may choose only among plans that give the same results on trial candidates: timing noise
must not reach an accuracy. Knows nothing of splits or caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.latency import wait_for
from pruning_env.metrics import outputs_in_batches
from pruning_env.strategies import Strategy

__all__ = ["Plan", "Trial", "choose_plan"]

MARGIN = 0.95
"""A plan replaces the first one only when it takes less than this share of its time."""


@dataclass(frozen=True)
class Trial:
    """A strategy and batch size that were tried.

    Attributes:
        strategy: Its name.
        batch_size: Images per forward pass.
        seconds: Estimate for one candidate: cut and recover, and forward passes of all images.
        same: Whether its results were those of the first trial: bit for bit on a CPU, the same
            classes elsewhere. Otherwise it was not eligible.
    """

    strategy: str
    batch_size: int
    seconds: float
    same: bool


@dataclass(frozen=True)
class Plan:
    """How candidates are judged.

    Attributes:
        strategy: "sliced" or "masked".
        batch_size: Images per forward pass.
        trials: What was measured to decide, in order; empty when there was no choice.
    """

    strategy: str
    batch_size: int
    trials: tuple[Trial, ...] = ()


def choose_plan(
    strategies: Mapping[str, Callable[[], Strategy]],
    batch_sizes: Sequence[int],
    probes: Sequence[NDArray[np.bool_]],
    images: torch.Tensor,
    total: int,
    seconds: float,
) -> Plan:
    """Try strategies and batch sizes on a few images; return the fastest that changes no result.

    Args:
        strategies: By name, made when tried; the first one is the reference.
        batch_sizes: The first one is the reference.
        probes: Keep masks; the first is timed, all must give the reference's results.
        images: (n, ...) to try on.
        total: Images that a candidate will be judged on.
        seconds: No trial begins after so long; the first always runs.
    """
    if len(strategies) == len(batch_sizes) == 1:
        return Plan(next(iter(strategies)), batch_sizes[0])
    deadline = time.perf_counter() + seconds
    reference: list[torch.Tensor] = []
    trials: list[Trial] = []
    for name, make in strategies.items():
        if trials and time.perf_counter() > deadline:
            break
        trials += _trials(name, make(), batch_sizes, probes, images, total, deadline, reference)
    eligible = [trial for trial in trials if trial.same]
    best = min(eligible, key=lambda trial: trial.seconds)
    if best.seconds > MARGIN * trials[0].seconds:
        best = trials[0]
    return Plan(best.strategy, best.batch_size, tuple(trials))


def _trials(
    name: str,
    strategy: Strategy,
    batch_sizes: Sequence[int],
    probes: Sequence[NDArray[np.bool_]],
    images: torch.Tensor,
    total: int,
    deadline: float,
    reference: list[torch.Tensor],
) -> list[Trial]:
    """All batch sizes of one strategy; the first trial of all fills `reference`."""
    costs: dict[int, float] = {}
    same: dict[int, bool] = {}
    for number, probe in enumerate(probes):
        start = _now(images.device)
        with strategy.running(probe) as candidate:
            prepared = _now(images.device) - start
            for size in batch_sizes:
                if number and size not in costs:
                    continue  # its time was up at the first probe
                if costs and number == 0 and time.perf_counter() > deadline:
                    break
                outputs = _outputs(candidate, images, size)  # also warms up
                if len(reference) == number:
                    reference.append(outputs)
                agrees = _same(outputs, reference[number])
                same[size] = same.get(size, True) and agrees
                if number == 0:
                    start = _now(images.device)
                    _outputs(candidate, images, size)
                    forward = _now(images.device) - start
                    costs[size] = prepared + forward * total / len(images)
    return [Trial(name, size, costs[size], same[size]) for size in costs]


def _outputs(model: nn.Module, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([part for _, part in outputs_in_batches(model, images, batch_size)])


def _same(outputs: torch.Tensor, reference: torch.Tensor) -> bool:
    if outputs.device.type == "cpu":
        return torch.equal(outputs.nan_to_num(), reference.nan_to_num())
    return torch.equal(outputs.argmax(1), reference.argmax(1))


def _now(device: torch.device) -> float:
    wait_for(device)
    return time.perf_counter()
