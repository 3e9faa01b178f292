"""How long the stages will take, from short measurements: a pass forward, a recovery, a step.

Rough: the networks that a search meets are of different sizes, other programs take their share of
the processor, and what is timed at the end of each search is not counted. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_agents.compress.sensitivity import PROBES
from pruning_agents.compress.stages import Request
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.latency import wait_for
from pruning_env.evaluation.recovery.processes import processes
from pruning_env.evaluation.recovery.training import TrainingRecipe, train_epochs
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Splits
from pruning_env.tasks.export import export
from pruning_env.tasks.registry import Task

__all__ = ["Measured", "measured"]

_Value = TypeVar("_Value")

#: Images of the passes that are timed.
_FEW = 32

#: Share of each group's channels that the timed network keeps: about half of the MACs.
_KEPT = 0.7


@dataclass(frozen=True)
class Measured:
    """Seconds of what the stages are made of, and how often each is needed.

    Attributes:
        trace: Of tracing the network.
        forward: Of a pass of the dense network, per image.
        pruned_forward: Of a pruned one of about half the MACs.
        candidate: Of cutting and recovering a candidate before it is judged.
        step: Of training, per image, with the teacher's pass.
        onnx: Of writing and checking an ONNX file; 0 where none is wanted.
        groups: Of channels.
        train_images: That a step learns from in an epoch.
        val_images: Of search-val.
        test_images: Of test.
    """

    trace: float
    forward: float
    pruned_forward: float
    candidate: float
    step: float
    onnx: float
    groups: int
    train_images: int
    val_images: int
    test_images: int

    @property
    def evaluation(self) -> float:
        """Seconds of judging one candidate on search-val."""
        return self.candidate + self.val_images * self.pruned_forward

    def evaluations_in(self, seconds: float) -> int:
        """How many evaluations fit into so many seconds, at least 1."""
        return max(1, int(seconds / self.evaluation))

    def seconds(self, request: Request, epochs: int) -> dict[str, float]:
        """Of each stage, by its name."""
        epoch = self.train_images * self.step + self.val_images * self.pruned_forward
        judged = (self.val_images + self.test_images) * (self.forward + 2 * self.pruned_forward)
        return {
            "graph": self.trace,
            "sensitivity": self.groups * PROBES * request.probe_images * self.forward,
            "rules": request.rules_evaluations * self.evaluation,
            "search": request.search_evaluations * self.evaluation,
            "finetune": epochs * epoch,
            "certify": judged,
            "export": self.onnx,
            "report": 2 * self.onnx,
        }


def measured(
    task: Task,
    weights: str | None,
    data_root: str | None,
    *,
    recovery: str,
    recipe: TrainingRecipe,
    device: str,
    onnx: bool,
) -> Measured:
    """Time one of each.

    Args:
        task: What is pruned.
        weights: Of the dense network; None means the task's own.
        data_root: Where the images are.
        recovery: Of the searches.
        recipe: Of the training.
        device: That computes.
        onnx: Whether the network is exported, too: one that cannot be is refused here, and not at
            the end of a long way.

    Raises:
        ValueError: There are too few images for the recipe, or the network cannot be exported.
        OSError: Weights or images are not there.
    """
    model = task.model(weights, data_root)
    splits = task.load_data(data_root)
    recipe.steps_per_epoch(len(splits.search_train))
    trace, graph = _timed(lambda: ChannelGraph.trace(model, task.example_input()), "cpu")
    exporting = 0.0
    if onnx:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "dense.onnx"
            exporting, _ = _timed(lambda: export(model, path, task.input_shape), "cpu")
    few = splits.search_val.evenly_spaced(_FEW)
    model.to(device)
    keep = _some(graph)
    pruned = graph.prune(model, keep)
    images = splits.normalised(few, torch.device(device))
    forward = _forward(model, images)
    pruned_forward = _forward(pruned, images)
    evaluator = Evaluator(
        model,
        graph,
        dataclasses.replace(splits, search_val=few),
        recovery=recovery,
        device=device,
    )
    whole, _ = _timed(lambda: evaluator.evaluate(keep), device)
    return Measured(
        trace=trace,
        forward=forward,
        pruned_forward=pruned_forward,
        candidate=max(whole - len(few) * pruned_forward, 0.0),
        step=_step(pruned, model, splits, recipe, device),
        onnx=exporting,
        groups=len(graph.groups),
        train_images=len(splits.search_train),
        val_images=len(splits.search_val),
        test_images=len(splits.test),
    )


def _some(graph: ChannelGraph) -> NDArray[np.bool_]:
    """A mask that keeps the same share of each group."""
    rank = np.concatenate([np.arange(group.size) for group in graph.groups])
    return graph.keep_top(rank, np.maximum(1, (_KEPT * graph.sizes).astype(np.int64)))


def _forward(model: nn.Module, images: torch.Tensor) -> float:
    """Seconds per image of the second of two passes; the first one warms up."""
    with torch.inference_mode():
        model(images)
        seconds, _ = _timed(lambda: model(images), images.device)
    return seconds / len(images)


def _step(
    pruned: nn.Module, dense: nn.Module, splits: Splits, recipe: TrainingRecipe, device: str
) -> float:
    """Seconds per image of one step of training with a teacher."""
    few = dataclasses.replace(
        splits,
        search_train=splits.search_train.evenly_spaced(recipe.batch_size),
        search_val=splits.search_val.evenly_spaced(2),
    )
    one = dataclasses.replace(recipe, epochs=1)
    with processes(device) as team:
        seconds, _ = _timed(
            lambda: train_epochs(pruned, few, one, teacher=dense, team=team), device
        )
    return seconds / recipe.batch_size


def _timed(function: Callable[[], _Value], device: torch.device | str) -> tuple[float, _Value]:
    begun = time.perf_counter()
    value = function()
    wait_for(torch.device(device))
    return time.perf_counter() - begun, value
