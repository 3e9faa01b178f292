"""How long models take on this machine, measured side by side.

Timings of small models drift with temperature, clock and neighbours, so the models take turns and
each is summarised by its median; a ratio of two comes with what its spread leaves open. What is
timed is anything that takes a batch: a module, or what `runtimes.py` makes of one. Knows nothing of
pruning.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Forward = Callable[[torch.Tensor], Any]
"""What is timed: a module in eval mode, or anything else that takes a batch (N, ...)."""


def interleaved_latency(
    models: Sequence[Forward], images: torch.Tensor, *, rounds: int = 30, warmup: int = 3
) -> NDArray[np.float64]:
    """Median seconds that each model takes for one forward pass of `images`.

    One round runs every model once, so all see the same drift; the order turns by one from round to
    round. Runs in inference mode, on the device of `images`, with torch's current threads.

    Args:
        models: modules in eval mode or what `Runtime.ready` gives, on the device of `images`.
        images: (N, ...) one batch; the latency is that of the whole batch.
        rounds: timed rounds, at least 1.
        warmup: rounds before them that are not timed.

    Returns:
        (len(models),) seconds.

    Raises:
        ValueError: if `rounds` is below 1 or there is no model.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} must be at least 1")
    if not models:
        raise ValueError("models is empty; give at least one")
    turns = [_round(models, images, turn)[0] for turn in range(warmup + rounds)]
    return np.median(turns[warmup:], axis=0)


@dataclass(frozen=True)
class LatencyRatio:
    """Time of one model / time of another, and how sure that is.

    Attributes:
        low: lower end of the interval that holds the true median with 95 % confidence.
        high: its upper end.
        rounds: timed rounds that say so.
        dense_seconds: median of the other model's times: of the processor's where one thread of a
            CPU computes, since other jobs move it less, else of the wall clock's.
        seconds: likewise of the one's.
    """

    low: float
    high: float
    rounds: int
    dense_seconds: float
    seconds: float


#: Rounds that are timed at least; the least and largest of six hold the median with 97 %.
FEWEST_ROUNDS = 6
MOST_ROUNDS = 36
CONFIDENCE = 0.95


def latency_ratio(
    dense: Forward, pruned: Forward, images: torch.Tensor, *, limit: float | None = None
) -> LatencyRatio:
    """Time of `pruned` / time of `dense` for one forward pass of `images`, on this machine.

    The models take turns, and each round gives a ratio; the interval is that of their median, by
    order statistics, so one slow round moves it little. On a CPU both the wall clock and the
    processor time that this process was given are read, and the larger ratio counts: beside other
    jobs a long pass is interrupted more often than a short one, so that the wall clock alone
    flatters the small model.

    Args:
        dense: a module in eval mode or what `Runtime.ready` gives, on the device of `images`.
        pruned: likewise.
        images: (N, ...) one batch.
        limit: stop as soon as the interval does not hold it, which is a little less sure than the
            whole; None, or while it does: `MOST_ROUNDS`.
    """
    models = [dense, pruned]
    _round(models, images, 0)  # warms up
    timed: list[NDArray[np.float64]] = []
    for turn in range(MOST_ROUNDS):
        timed.append(_round(models, images, turn))
        if len(timed) < FEWEST_ROUNDS:
            continue
        low, high = _median_interval(np.array(timed), images.device.type == "cpu")
        if limit is not None and not low <= limit < high:
            break
    medians = np.median(_steady(np.array(timed), images.device), axis=0)
    return LatencyRatio(low, high, len(timed), float(medians[0]), float(medians[1]))


def typical_ratio(dense: Forward, pruned: Forward, images: torch.Tensor) -> float:
    """Time of `pruned` / time of `dense`, the likeliest; `latency_ratio` has what is safe to say.

    It is the median over the rounds, by the clock that `LatencyRatio` has the seconds of.

    Args:
        dense: as in `latency_ratio`.
        pruned: likewise.
        images: (N, ...) one batch.
    """
    _round([dense, pruned], images, 0)  # warms up
    rounds: list[NDArray[np.float64]] = []
    while len(rounds) < TYPICAL_ROUNDS[0] or (
        len(rounds) < TYPICAL_ROUNDS[1] and sum(each[0].sum() for each in rounds) < TYPICAL_SECONDS
    ):
        rounds.append(_round([dense, pruned], images, len(rounds)))
    timed = _steady(np.array(rounds), images.device)
    return float(np.median(timed[:, 1] / timed[:, 0]))


def _steady(seconds: NDArray[np.float64], device: torch.device) -> NDArray[np.float64]:
    """(rounds, models) of (rounds, 2 clocks, models), by the clock that other jobs move less."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    return seconds[:, int(alone and bool((seconds[:, 1] > 0).all()))]


TYPICAL_ROUNDS = (12, 100)
"""Rounds of `typical_ratio`, at least and at most: more where they are short."""
TYPICAL_SECONDS = 0.2
"""Where no more rounds begin, unless they are fewer than the least."""


def _median_interval(seconds: NDArray[np.float64], processor: bool) -> tuple[float, float]:
    """The interval of the median ratio, of the clock by which it is larger.

    Args:
        seconds: (rounds, 2 clocks, 2 models), as `_round` gives them.
        processor: whether processor time says something; else, and where that clock is too coarse
            for the models, the wall clock alone counts.
    """
    clocks = [True, processor and bool((seconds[:, 1] > 0).all())]
    ratios = np.sort(seconds[:, clocks, 1] / seconds[:, clocks, 0], axis=0)
    count, outside, tail = len(ratios), -1, 0.0
    while (tail := tail + math.comb(count, outside + 1) / 2**count) <= (1 - CONFIDENCE) / 2:
        outside += 1
    return float(ratios[outside].max()), float(ratios[-1 - outside].max())


def _round(models: Sequence[Forward], images: torch.Tensor, turn: int) -> NDArray[np.float64]:
    """(2, len(models)) seconds of wall clock and processor time; who begins depends on `turn`."""
    seconds = np.empty((2, len(models)))
    with torch.inference_mode():
        for offset in range(len(models)):
            index = (turn + offset) % len(models)
            wait_for(images.device)
            start = _clocks()
            models[index](images)
            wait_for(images.device)
            seconds[:, index] = _clocks() - start
    return seconds


def _clocks() -> NDArray[np.float64]:
    return np.array([time.perf_counter(), time.process_time()])


def wait_for(device: torch.device) -> None:
    """Kernels on an accelerator run behind the caller's back; time only finished ones."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
