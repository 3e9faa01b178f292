"""How the cost of candidates grows, and which way of running them is the fastest where."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.speed.floor import timed
from benchmarks.speed.networks import Network, register
from benchmarks.speed.settings import Figures, SpeedSettings
from pruning_env.evaluation.batched import Batched
from pruning_env.evaluation.compiled import Compiled
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.execution import ACCELERATOR_BATCHES, CPU_BATCHES
from pruning_env.evaluation.metrics import BatchSize
from pruning_env.evaluation.recovery.batch_norm import leave_as_is
from pruning_env.evaluation.strategies import Masked, Sliced, Strategy, measure_all
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import CifarResNet
from pruning_env.tasks.registry import get_task

SCALING_AXES = ("images", "layers", "channels", "N")

_VALUES = {
    "images": (128, 256, 512, 1024),
    "layers": (8, 14, 20, 32),
    "channels": (8, 16, 32, 64),
    "N": (1, 4, 16, 64),
}
_BASE = Network("scaling", partial(CifarResNet, 8), (3, 16, 16), 128)

CROSSOVER_IMAGES = 256  # at most: what is compared is time per candidate
TOGETHER = (2, 8, 32)  # candidates in one forward pass
PATIENCE = 45.0  # seconds; no round begins after so long


def scaling(axis: str, settings: SpeedSettings) -> Figures:
    """Seconds over one axis, and the slope of the log-log line through them.

    Of a candidate with half of the channels and without recovery; by "N", of a call with N.
    """
    values = _VALUES[axis][:2] if settings.smoke else _VALUES[axis]
    evaluators = [_evaluator(_network(axis, value, settings), settings) for value in values]
    rng = np.random.default_rng(settings.seed)
    spent: dict[str, list[float]] = {str(value): [] for value in values}
    for turn in range(settings.turns + 1):
        for value, evaluator in zip(values, evaluators, strict=True):
            number = value if axis == "N" else 1
            keeps = [evaluator.graph.random_keep(0.5, rng) for _ in range(number)]
            seconds = timed(partial(evaluator.evaluate_many, keeps), evaluator.device)
            if turn:
                spent[str(value)].append(seconds)
    medians = {name: statistics.median(times) for name, times in spent.items()}
    slope = np.polyfit(np.log(values), np.log(list(medians.values())), 1)[0]
    images = len(evaluators[0].images("search-val")[0])
    return Figures(images, 0, medians, {"slope": float(slope)})


def _network(axis: str, value: int, settings: SpeedSettings) -> Network:
    """The network of one point of an axis."""
    if axis == "images":
        return replace(_BASE, images=value // 16 if settings.smoke else value)
    base = replace(_BASE, images=settings.images(_BASE))
    if axis == "layers":
        return replace(base, build=partial(CifarResNet, value), name=f"deep{value}")
    if axis == "channels":
        widths = (value, 2 * value, 4 * value)
        return replace(base, build=partial(CifarResNet, 8, widths=widths), name=f"wide{value}")
    return base


def _evaluator(network: Network, settings: SpeedSettings) -> Evaluator:
    task = get_task(register(network, network.images, settings.calibration, settings.seed))
    model = task.model()
    return Evaluator(
        model,
        ChannelGraph.trace(model, task.example_input()),
        task.load_data(None),
        recovery="none",
        device=settings.device,
        batch_size=128,
        cache_size=0,
    )


def crossover(network: Network, settings: SpeedSettings) -> Figures:
    """Seconds per candidate, sliced, masked, several at once, and compiled, without recovery.

    Compiling itself is not timed, and left out of a smoke run and where it does not work.
    """
    count = min(settings.images(network), CROSSOVER_IMAGES)
    task = get_task(register(network, count, settings.calibration, settings.seed))
    model, splits = task.model(), task.load_data(None)
    graph = ChannelGraph.trace(model, task.example_input())
    device = torch.device(settings.device)
    model.to(device)
    images = splits.normalised(splits.search_val, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = splits.search_val.labels.to(device)
    parts = graph, model, leave_as_is, images[:2]
    strategies: dict[str, Strategy] = {"sliced": Sliced(*parts), "masked": Masked(*parts)}
    for number in TOGETHER[:1] if settings.smoke else TOGETHER:
        strategies[f"batched {number}"] = Batched(*parts, at_once=number)
    batch_size = (CPU_BATCHES if device.type == "cpu" else ACCELERATOR_BATCHES)[0]
    notes = f"at most {batch_size} images x candidates in a pass"
    if not settings.smoke:
        compiled = Compiled(*parts)
        try:
            measure_all(compiled, [graph.full()], images, labels, BatchSize(batch_size))
        except RuntimeError as error:  # no compiler for this device, most of all
            notes += f"; not compiled: {str(error).splitlines()[0]}"
        else:
            strategies["compiled"] = compiled
    rng = np.random.default_rng(settings.seed)
    spent: dict[str, list[float]] = {name: [] for name in strategies}
    slow = 0.0
    for turn in range(settings.turns + 1):
        for name, strategy in strategies.items():
            keeps = [graph.random_keep(0.5, rng) for _ in range(strategy.at_once)]
            judge: Callable[[], object] = partial(
                measure_all, strategy, keeps, images, labels, BatchSize(batch_size)
            )
            seconds = timed(judge, device)
            slow += seconds
            if turn:
                spent[name].append(seconds / strategy.at_once)
        if turn and slow > PATIENCE:
            break
    ratios = {
        f"{name} / sliced": statistics.median(
            own / sliced for own, sliced in zip(times, spent["sliced"], strict=True)
        )
        for name, times in spent.items()
        if name != "sliced"
    }
    medians = {name: statistics.median(times) for name, times in spent.items()}
    return Figures(count, 0, medians, ratios, f"{len(spent['sliced'])} rounds, {notes}")
