"""A candidate of a pruning environment built on Torch-Pruning; needs `torch-pruning`.

Its groups hold module objects, so every candidate needs a deep copy of the dense network and a
dependency graph of its own. Everything that can be done once is done once.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import nn

from pruning_env.evaluation.metrics import Metrics, measure

__all__ = ["TorchPruningCandidates"]


class TorchPruningCandidates:
    """Judges the network pruned by the same ratio everywhere, random channels, not recovered.

    Args:
        model: Dense, eval mode.
        example: (1, ...) input.
        outputs: Names of layers whose outputs must stay.
        images: (N, ...) to judge on; labels (N,).
        labels: see images.
        batch_size: Images per forward pass.
    """

    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        outputs: tuple[str, ...],
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
    ) -> None:
        # Late, because it is no dependency.
        import torch_pruning  # type: ignore[import-not-found, import-untyped, unused-ignore]

        self._library: Any = torch_pruning
        self._model = model
        self._example = example
        self._outputs = outputs
        self._images, self._labels, self._batch_size = images, labels, batch_size

    def cut(self, ratio: float) -> nn.Module:
        """Deep copy, dependency graph, and one step that removes `ratio` of each group."""
        candidate = copy.deepcopy(self._model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = self._library.pruner.BasePruner(
                candidate,
                self._example,
                importance=self._library.importance.RandomImportance(),
                pruning_ratio=ratio,
                ignored_layers=[candidate.get_submodule(name) for name in self._outputs],
            )
            pruner.step()
        return candidate.eval()

    def evaluate(self, ratio: float) -> Metrics:
        """Cut, and judge on the images."""
        return measure(self.cut(ratio), self._images, self._labels, self._batch_size)
