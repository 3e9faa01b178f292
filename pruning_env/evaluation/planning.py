"""Timed trials that choose how pruned networks are evaluated: strategy and batch size.

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

from pruning_env.evaluation.latency import wait_for
from pruning_env.evaluation.metrics import Outputs, outputs_in_batches
from pruning_env.evaluation.strategies import Strategy

__all__ = ["Plan", "Trial", "choose_plan"]

MARGIN = 0.95
"""A plan replaces the first one only when it takes less than this share of its time."""


@dataclass(frozen=True)
class Trial:
    """A strategy and batch size that were tried.

    Attributes:
        strategy: Its name.
        batch_size: Images per forward pass, counting an image once for every candidate.
        seconds: Estimate per candidate: cut and recover, and forward passes of all images.
        same: Whether its results were those of the first trial: bit for bit on a CPU, the same
            classes elsewhere. Otherwise it was not eligible.
        at_once: Candidates that share a forward pass, and the seconds.
    """

    strategy: str
    batch_size: int
    seconds: float
    same: bool
    at_once: int = 1


@dataclass(frozen=True)
class Plan:
    """The strategy and batch size by which pruned networks are evaluated.

    Attributes:
        strategy: "sliced", "masked", "batched" or "compiled".
        batch_size: Images per forward pass.
        trials: What was measured to decide, in order; empty when there was no choice.
        many: The trial that says how candidates are judged of which there are as many as it takes
            at once; None: like one.
    """

    strategy: str
    batch_size: int
    trials: tuple[Trial, ...] = ()
    many: Trial | None = None


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
        strategies: By name, made when tried; the first one is the reference. Others that raise
            ValueError cannot run this network and are left out.
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
        try:
            strategy = make()
        except ValueError:
            if not trials:
                raise
            continue
        trials += _trials(name, strategy, batch_sizes, probes, images, total, deadline, reference)
    best = _fastest([trial for trial in trials if trial.at_once == trials[0].at_once], trials[0])
    many = _fastest([trial for trial in trials if trial.at_once > best.at_once], best)
    return Plan(best.strategy, best.batch_size, tuple(trials), None if many is best else many)


def _fastest(trials: Sequence[Trial], first: Trial) -> Trial:
    """The fastest eligible one, if it beats `first` by more than noise."""
    best = min((trial for trial in trials if trial.same), key=lambda t: t.seconds, default=first)
    return best if best.seconds <= MARGIN * first.seconds else first


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
    for number in range(len(probes)):
        # This probe first, the others beside it where there is room.
        keeps = [probes[(number + i) % len(probes)] for i in range(strategy.at_once)]
        start = _now(images.device)
        with strategy.running(keeps) as candidates:
            prepared = _now(images.device) - start
            for size in batch_sizes:
                if number and size not in costs:
                    continue  # its time was up at the first probe
                if costs and number == 0 and time.perf_counter() > deadline:
                    break
                shown = max(1, size // strategy.at_once)
                outputs = _outputs(candidates, images, shown)[0]  # also warms up
                if len(reference) == number:
                    reference.append(outputs)
                agrees = _same(outputs, reference[number])
                same[size] = same.get(size, True) and agrees
                if number == 0:
                    start = _now(images.device)
                    _outputs(candidates, images, shown)
                    forward = _now(images.device) - start
                    costs[size] = (prepared + forward * total / len(images)) / strategy.at_once
    return [Trial(name, size, costs[size], same[size], strategy.at_once) for size in costs]


def _outputs(outputs: Outputs, images: torch.Tensor, batch_size: int) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([part for _, part in outputs_in_batches(outputs, images, batch_size)], 1)


def _same(outputs: torch.Tensor, reference: torch.Tensor) -> bool:
    if outputs.device.type == "cpu":
        return torch.equal(outputs.nan_to_num(), reference.nan_to_num())
    return torch.equal(outputs.argmax(1), reference.argmax(1))


def _now(device: torch.device) -> float:
    wait_for(device)
    return time.perf_counter()
