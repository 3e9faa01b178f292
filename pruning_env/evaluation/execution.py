"""How candidates are run: which strategy, in batches of how many images.

Puts the strategies (strategies.py, batched.py, compiled.py) behind the plan that names them
(planning.py), and remembers for how many images the memory suffices. Knows nothing of splits,
caches or counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.evaluation.batched import Batched
from pruning_env.evaluation.compiled import Compiled
from pruning_env.evaluation.metrics import BatchSize, Metrics, measure
from pruning_env.evaluation.planning import Plan, choose_plan
from pruning_env.evaluation.precision import arithmetic
from pruning_env.evaluation.recovery.batch_norm import RECOVERIES, leave_as_is
from pruning_env.evaluation.recovery.reconstruction import Reconstruction
from pruning_env.evaluation.strategies import Masked, Sliced, Strategy, measure_all
from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["ACCELERATOR_BATCHES", "CPU_BATCHES", "STRATEGIES", "Execution"]

STRATEGIES = ("auto", "sliced", "masked", "batched", "compiled")

# One size on a CPU: kernels round by how many rows they get, and the clock must not choose the bits
# of a loss. On 2 cores 32 to 128 images are alike and up to 1.4 times faster than 256 (ResNet-20,
# ResNet-50, DenseNet-121), whose activations fit no cache. A GPU wants large batches.
CPU_BATCHES = (128,)
ACCELERATOR_BATCHES = (1024, 4096, 256)

PLANNING_SECONDS = 1.0
"""No trial of a plan begins after so long; the trials decide what costs every evaluation."""

_PROBES = (0.5, 0.2)  # shares of the channels that trial candidates keep; the first is timed


class Execution:
    """Runs the dense model and networks cut from it.

    Args:
        graph: The channel graph of `model`.
        model: The dense model, on its device, in eval mode.
        images: (N, ...) that candidates will be judged on; the plan's trials use the first of them.
        calibration: (M, ...) images for recovery.
        recovery: As of `Evaluator`.
        strategy: As of `Evaluator`.
        precision: As of `Evaluator`.
        batch_size: As of `Evaluator`.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        images: torch.Tensor,
        calibration: torch.Tensor,
        *,
        recovery: str,
        strategy: str,
        precision: str,
        batch_size: int | None,
    ) -> None:
        self._graph, self._model, self._images = graph, model, images
        self._precision = precision
        self._strategy, self._batch_size = strategy, batch_size
        # Masking leaves the weights of a recovery that trains nowhere to live.
        self._maskable = not graph.normalised and recovery != "finetune"
        refit = Reconstruction(graph, model, calibration) if recovery == "reconstruct" else None
        recover = RECOVERIES.get(recovery, leave_as_is)
        self._parts = (graph, model, recover, calibration, refit)
        self.sliced = Sliced(*self._parts)

    @cached_property
    def masked(self) -> Masked:
        """One full-size module."""
        return Masked(*self._parts)

    @cached_property
    def batched(self) -> Batched:
        """One forward pass for several candidates."""
        return Batched(*self._parts)

    @cached_property
    def compiled(self) -> Compiled:
        """One full-size module whose kernels are fused."""
        return Compiled(*self._parts)

    @cached_property
    def plan(self) -> Plan:
        """How candidates are run, and the figures behind it; measured at the first use."""
        device = self._images.device
        sizes = CPU_BATCHES if device.type == "cpu" else ACCELERATOR_BATCHES
        names = ["sliced"]
        if self._maskable and self._strategy != "auto":
            names = [self._strategy]
        elif self._maskable and device.type != "cpu":
            names += ["masked", "batched"]  # compiling takes longer than all trials may
        rng = np.random.default_rng(0)
        with arithmetic(self._precision, device):
            return choose_plan(
                {name: partial(self._named, name) for name in names},
                sizes if self._batch_size is None else (self._batch_size,),
                [self._graph.random_keep(share, rng) for share in _PROBES],
                self._images[: max(sizes)],
                len(self._images),
                PLANNING_SECONDS,
            )

    @cached_property
    def batch_size(self) -> BatchSize:
        """Images per forward pass: as planned, until the memory did not suffice."""
        return BatchSize(self.plan.batch_size)

    @cached_property
    def _many_batch_size(self) -> BatchSize:
        many = self.plan.many
        return self.batch_size if many is None else BatchSize(many.batch_size)

    def measure(self, model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> Metrics:
        """Judge a module as it is."""
        with arithmetic(self._precision, images.device):
            return measure(model, images, labels, self.batch_size)

    def measure_masks(
        self, keeps: Sequence[NDArray[np.bool_]], images: torch.Tensor, labels: torch.Tensor
    ) -> list[Metrics]:
        """Cut, recover and judge each of the keep masks, in order."""
        many = self.plan.many
        together = 0 if many is None else len(keeps) // many.at_once * many.at_once
        with arithmetic(self._precision, images.device):
            results = []
            if many is not None and together:
                strategy = self._named(many.strategy)
                first = keeps[:together]
                results = measure_all(strategy, first, images, labels, self._many_batch_size)
            rest = self._named(self.plan.strategy)
            return results + measure_all(rest, keeps[together:], images, labels, self.batch_size)

    def candidate(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The pruned and recovered network, a module of its own."""
        with arithmetic(self._precision, self._images.device):
            return self.sliced.candidate(keep)

    def _named(self, name: str) -> Strategy:
        strategy: Strategy = getattr(self, name)
        return strategy
