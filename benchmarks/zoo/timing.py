"""Medians of several functions timed in turns, so that all of them meet the same neighbours."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence

from benchmarks.zoo.rows import Timing


def stopwatch(function: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor milliseconds of one call; what it returns is dropped after the clock."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return 1e3 * spent[0], 1e3 * spent[1]


def interleaved(
    functions: Sequence[Callable[[], object]], repetitions: int, limit_seconds: float
) -> list[Timing]:
    """Time functions in turns: once for warming up, then `repetitions` times or up to a limit.

    A round that begins after `limit_seconds` of processor time is left out; when the first round
    (warming up) takes that long already, it is the one that counts. Garbage is collected between
    calls and never inside one.
    """
    rounds: list[list[tuple[float, float]]] = []
    begin = time.process_time()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(rounds) <= repetitions and (
            not rounds or time.process_time() - begin < limit_seconds
        ):
            rounds.append([])
            for function in functions:
                gc.collect()
                rounds[-1].append(stopwatch(function))
    finally:
        if collecting:
            gc.enable()
    counted = rounds[1:] or rounds
    return [
        Timing(
            statistics.median(each[place][0] for each in counted),
            statistics.median(each[place][1] for each in counted),
            len(counted),
        )
        for place in range(len(functions))
    ]
