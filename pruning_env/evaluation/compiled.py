"""Candidates masked inside one network that `torch.compile` has compiled.

Pays where a network is so small, or a device so fast, that launching kernels is what takes time:
kernels are fused, and on CUDA replayed as graphs. Compiling takes tens of seconds, more than any
trial may, so nothing chooses it but a person. Knows nothing of caches, splits or plans.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.evaluation.metrics import Outputs
from pruning_env.evaluation.strategies import Masked, Recover, Refit
from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Compiled"]


class Compiled(Masked):
    """`Masked`, whose forward pass is compiled when it is first run; the recovery is not.

    Masks, restored weights and recovered statistics are written into the tensors that the compiled
    code reads, so one compilation serves all candidates. A second number of images (the last batch)
    costs a second one, which serves all further numbers.

    Arguments and errors are those of `Masked`.
    """

    name = "compiled"

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        recover: Recover,
        calibration: torch.Tensor,
        refit: Refit | None = None,
    ) -> None:
        super().__init__(graph, model, recover, calibration, refit)
        # On CUDA "reduce-overhead" records graphs, elsewhere it is the default mode.
        self._forward = torch.compile(self._model, mode="reduce-overhead")

    @contextmanager
    def running(self, keeps: Sequence[NDArray[np.bool_]]) -> Iterator[Outputs]:
        """See `Strategy.running`."""
        (keep,) = keeps
        with self.network(keep):
            # A graph's next replay overwrites what this one returned.
            yield lambda images: self._forward(images).unsqueeze(0).clone()
