"""Several candidates in one forward pass: one full-size network with a stack of masked weights.

`torch.vmap` turns K networks that differ in their tensors into one whose layers do K times the
work, as grouped convolutions and batched matrix products. That computes what was removed, and pays
only where a network is too small to fill a device. Knows nothing of caches, splits or how the
choice among strategies is made (planning.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.func import vmap

from pruning_env.evaluation.metrics import Outputs
from pruning_env.evaluation.strategies import Recover, Refit, check_maskable
from pruning_env.evaluation.weights import spread
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.copies import named_tensors, structure_copy
from pruning_env.graph.functional import call_with

__all__ = ["AT_ONCE", "Batched"]

AT_ONCE = 8
"""Most candidates in one forward pass: that many copies of the weights are in memory."""


class Batched:
    """The strategy that stacks: up to `at_once` masked candidates as one network.

    Weights that read removable channels, or that are refitted, and all buffers are there once per
    candidate, the first with zeros for the channels that its mask removes; all else is the dense
    model's and shared. As in `Masked`, a removed channel still computes, so a value that is not
    finite there spreads.

    Args:
        graph: Channel graph of `model`, no norm of which takes statistics over channels.
        model: The dense model on the device; read only.
        recover: May change buffers only.
        calibration: (N, ...) images for `recover`, N at least 2.
        refit: What it changes in pruned networks is changed here; None: weights stay.
        at_once: Most candidates in one forward pass.

    Raises:
        ValueError: A norm takes statistics over channels, so that removed ones would count; or
            `torch.vmap` cannot run the network, which it says where a value decides what runs.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        recover: Recover,
        calibration: torch.Tensor,
        refit: Refit | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        check_maskable("batched", graph)
        self.at_once = at_once
        self._graph = graph
        self._model = model
        self._refit = refit
        self._recover = recover
        self._calibration = calibration
        self._slots = [slot for slot in graph.slots if slot.consumes]
        self._stacked = {slot.tensor for slot in self._slots} | {
            n for n, _ in model.named_buffers()
        }
        if refit is not None:
            self._stacked |= set(refit.tensors)
        try:
            networks = self._networks([graph.full()] * 2)
            recover(networks, calibration[:2])
            with torch.inference_mode():
                networks(calibration[:2])
        except RuntimeError as error:
            raise ValueError(
                f"strategy 'batched': torch.vmap cannot run this network ({error}); use 'sliced'"
            ) from error

    @contextmanager
    def running(self, keeps: Sequence[NDArray[np.bool_]]) -> Iterator[Outputs]:
        """See `Strategy.running`."""
        networks = self._networks(keeps)
        self._recover(networks, self._calibration)
        yield networks

    def _networks(self, keeps: Sequence[NDArray[np.bool_]]) -> _Networks:
        """Masked and not recovered."""
        dense = dict(named_tensors(self._model))
        stacks = {
            name: dense[name].detach().expand(len(keeps), *dense[name].shape).clone()
            for name in self._stacked
        }
        if self._refit is not None:
            for number, keep in enumerate(keeps):
                rows = {name: stacks[name][number] for name in self._refit.tensors}
                spread(self._graph, self._refit.pruned(keep), keep, rows)
        for slot in self._slots:
            for row, keep in zip(stacks[slot.tensor], keeps, strict=True):
                kept = np.append(keep, True)  # channel -1 reads the last entry: never removed
                gone = np.flatnonzero(~kept[slot.channels])
                if gone.size:
                    row.index_fill_(slot.dim, torch.from_numpy(gone).to(row.device), 0)
        tensors = dense | {
            name: nn.Parameter(stack, requires_grad=False)
            if isinstance(dense[name], nn.Parameter)
            else stack
            for name, stack in stacks.items()
        }
        return _Networks(structure_copy(self._model, dense, tensors), self._stacked, len(keeps))


class _Networks(nn.Module):
    """K networks of one structure, as a module.

    Its batch norms hold the stacks of their statistics, so that a recovery that resets, switches or
    reads them does so for all K at once.

    Args:
        network: The structure, whose tensors of these names have K as a first dimension.
        stacked: Names of parameters and buffers.
        number: K.
    """

    def __init__(self, network: nn.Module, stacked: set[str], number: int) -> None:
        super().__init__()
        self.network = network
        self._stacks = {name: t for name, t in named_tensors(network) if name in stacked}
        self._number = number
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, ...) -> (K, n, classes)."""

        def run(tensors: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = call_with(self.network, tensors, images)
            return logits

        # Every network gets its own view of the images: code that adds in place to what only the
        # images went into would otherwise find no room for K results.
        each = images.expand(self._number, *images.shape)
        together: torch.Tensor = vmap(run)(self._stacks, each)
        return together
