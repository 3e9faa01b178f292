"""Judging many networks of which only the best matter: all on a few images, the better on all.

One round of successive halving (Jamieson and Talwalkar 2016) over images instead of training time:
whoever is behind on a first part of search-val falls out, and the others are judged on the rest, so
that an accuracy that counts is always one on all images. Knows nothing of caches or of counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pruning_env.evaluation.execution import Execution
from pruning_env.evaluation.metrics import Metrics

__all__ = ["Raced", "check_race", "run_race"]


@dataclass(frozen=True)
class Raced:
    """What became of a network in a race.

    Attributes:
        metrics: On all of search-val, or on the first part of it.
        complete: Whether it is all.
    """

    metrics: Metrics
    complete: bool


def check_race(race: Any, recovery: str) -> None:
    """Raise `ValueError` unless networks can be compared on that share of search-val first."""
    if race is None:
        return
    if isinstance(race, bool) or not isinstance(race, int | float) or not 0.0 < race < 1.0:
        raise ValueError(f"race={race!r} is not allowed; give None or a number in (0, 1)")
    if recovery == "finetune":
        raise ValueError(
            f"race={race!r} is not allowed with recovery='finetune', where training takes longer "
            "than judging; give None"
        )


def run_race(
    execution: Execution,
    masks: Sequence[NDArray[np.bool_]],
    images: torch.Tensor,
    labels: torch.Tensor,
    share: float,
) -> tuple[list[Raced], int]:
    """Judge networks on the first part of the images, and the better half on the rest.

    The part is of images at equal distances. A network is cut and recovered once; all are held at
    the same time, each as a smaller module of its own.

    Args:
        execution: Cuts, recovers and measures.
        masks: Each (C,) bool, at least one.
        images: (N, ...) on the device, N at least 2.
        labels: (N,) int64.
        share: In (0, 1), of the images that all are judged on; at least one, and not all.

    Returns:
        What became of each, in order, and the images shown in all, recovery left aside.
    """
    total = len(labels)
    ahead = min(max(1, round(share * total)), total - 1)
    places = np.linspace(0, total - 1, ahead).round().astype(np.int64)
    first = torch.zeros(total, dtype=torch.bool, device=labels.device)
    first[torch.from_numpy(places).to(labels.device)] = True
    models = [execution.candidate(mask) for mask in masks]
    heat = [execution.measure(model, images[first], labels[first]) for model in models]
    ranked = sorted(range(len(masks)), key=lambda i: (-heat[i].accuracy, heat[i].loss))
    raced = [Raced(metrics, False) for metrics in heat]
    through = ranked[: -(-len(ranked) // 2)]
    for index in through:
        rest = execution.measure(models[index], images[~first], labels[~first])
        raced[index] = Raced(_together(heat[index], ahead, rest, total - ahead), True)
    return raced, len(masks) * ahead + len(through) * (total - ahead)


def _together(first: Metrics, images: int, rest: Metrics, others: int) -> Metrics:
    """What metrics on two disjoint sets of images say of both."""
    right = round(first.accuracy * images) + round(rest.accuracy * others)
    loss = first.loss * images + rest.loss * others
    return Metrics(accuracy=right / (images + others), loss=loss / (images + others))
