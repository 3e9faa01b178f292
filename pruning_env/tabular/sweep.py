"""Evaluate all configurations of a three-stage ResNet-8, sharing what they have in common.

The activations after a stage depend only on the widths up to there, recalibrated batch norms
included, so each stage runs once for each choice of widths so far; and the channels of the last
group do not see each other, so one pass serves all widths of that group. The results are those of
`Evaluator` up to rounding. Knows nothing of files or of the table's format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from pruning_env.evaluation.metrics import LOSS_CAP
from pruning_env.evaluation.recovery.batch_norm import RECOVERIES
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import CifarResNet

__all__ = ["Judged", "Sweep"]


@dataclass(frozen=True)
class Judged:
    """Metrics of some configurations, (n,) each: right answers, and mean cross-entropy."""

    val_correct: NDArray[np.int64]
    val_loss: NDArray[np.float64]
    test_correct: NDArray[np.int64]
    test_loss: NDArray[np.float64]


@dataclass(frozen=True)
class _Flow:
    """What the three image sets have become after some stages."""

    calibration: torch.Tensor  # as the recovery saw it, with the statistics of each batch
    val: torch.Tensor
    test: torch.Tensor


class _Recorder(nn.Module):
    """Keeps what a module puts out."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.outputs: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.outputs.append(self.inner(x))
        return self.outputs[-1]


class Sweep:
    """All configurations of one dense network under one recovery.

    Args:
        model: ResNet-8 in eval mode, whose shortcuts have weights: two groups per stage.
        graph: its channels.
        rank: (C,) the order in which channels go, see `ChannelGraph.rank`.
        recovery: "none" or "bn".
        images: calibration, search-val and test images, normalised, as the evaluator has them.
        val_labels: (n,) of search-val.
        test_labels: (n,) of test.
        batch_size: images per forward pass.
    """

    def __init__(
        self,
        model: CifarResNet,
        graph: ChannelGraph,
        rank: NDArray[np.int64],
        recovery: str,
        images: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        val_labels: torch.Tensor,
        test_labels: torch.Tensor,
        batch_size: int,
    ) -> None:
        self._model = model
        self._graph = graph
        self._rank = rank
        self._recover = RECOVERIES[recovery]
        self._recalibrates = recovery != "none"
        self._start = _Flow(*images)
        self._val_labels = val_labels
        self._test_labels = test_labels
        self._batch_size = batch_size
        (head,) = (slot for slot in graph.slots if slot.tensor == "linear.weight")
        self._head_rank = rank[head.channels]
        self._shared: dict[tuple[int, ...], _Flow] = {}

    def judge(self, counts: tuple[int, ...], last: NDArray[np.int64]) -> Judged:
        """Judge the configurations `(*counts, n)` for each width n of the last group.

        Args:
            counts: widths of all groups but the last.
            last: (n,) widths of the last group.
        """
        dense_last = int(self._graph.sizes[-1])
        keep = self._graph.keep_top(self._rank, np.array([*counts, dense_last]))
        model = self._graph.prune(self._model, keep).eval()
        assert isinstance(model, CifarResNet)
        flow = self._start
        for length, stage in (
            (2, nn.Sequential(model.conv1, model.bn1, nn.ReLU(), model.layer1)),
            (4, model.layer2),
        ):
            known = self._shared.get(counts[:length])
            if known is None:
                # Neighbours in the grid's order come together: one entry per stage is enough.
                self._shared = {k: v for k, v in self._shared.items() if len(k) < length}
                known = self._shared[counts[:length]] = self._through(stage, flow)
            flow = known
        pooled = nn.Sequential(model.layer3, nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        flow = self._through(pooled, flow)
        val = self._metrics(flow.val, self._val_labels, last)
        test = self._metrics(flow.test, self._test_labels, last)
        return Judged(*val, *test)

    def _through(self, stage: nn.Module, flow: _Flow) -> _Flow:
        stage.eval()
        calibration = flow.calibration
        if self._recalibrates:
            recorder = _Recorder(stage)
            self._recover(recorder, flow.calibration)
            calibration = torch.cat(recorder.outputs)
        with torch.inference_mode():
            return _Flow(
                calibration,
                *(
                    torch.cat([stage(batch) for batch in images.split(self._batch_size)])
                    for images in (flow.val, flow.test)
                ),
            )

    def _metrics(
        self, features: torch.Tensor, labels: torch.Tensor, last: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """As `metrics.measure`, for each width of the last group."""
        linear = self._model.linear
        with torch.inference_mode():
            logits = torch.stack(list(self._logits(features, linear, last)))
            finite = logits.isfinite().all(dim=-1)
            correct = ((logits.argmax(dim=-1) == labels) & finite).sum(dim=-1)
            target = labels.expand(len(last), -1)
            each = functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
            each = torch.where(finite, each, LOSS_CAP).clamp(max=LOSS_CAP)
            loss = each.sum(dim=-1, dtype=torch.float64) / len(labels)
        return correct.numpy(), loss.numpy()

    def _logits(
        self, features: torch.Tensor, linear: nn.Linear, last: NDArray[np.int64]
    ) -> Iterator[torch.Tensor]:
        for width in last:
            kept = torch.from_numpy(np.flatnonzero(self._head_rank < width))
            weight = linear.weight.index_select(1, kept)
            yield functional.linear(features.index_select(1, kept), weight, linear.bias)
