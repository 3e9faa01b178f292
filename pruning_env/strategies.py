"""How a candidate is run: cut out of the dense model, or masked inside it.

A strategy makes, for the time of a `with` block, a module that computes what the pruned and
recovered network does. All strategies agree to numerical tolerance. Knows nothing of caches,
splits or how the choice among strategies is made (planning.py).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.channels import ChannelGraph
from pruning_env.metrics import Metrics, measure

__all__ = ["Masked", "Recover", "Sliced", "Strategy", "measure_all"]

Recover = Callable[[nn.Module, torch.Tensor], None]
"""(candidate, calibration images): changes the candidate in place."""


class Strategy(Protocol):
    """A way of running candidates. All give the same results to numerical tolerance."""

    def running(self, keep: NDArray[np.bool_]) -> AbstractContextManager[nn.Module]:
        """The pruned and recovered network of a valid mask, eval mode; only for the block."""
        ...


def measure_all(
    strategy: Strategy,
    keeps: Sequence[NDArray[np.bool_]],
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: int,
) -> list[Metrics]:
    """Judge each of the masks, in order; one candidate lives at a time."""
    results = []
    for keep in keeps:
        with strategy.running(keep) as candidate:
            results.append(measure(candidate, images, labels, batch_size))
    return results


class Sliced:
    """The strategy that cuts: a candidate becomes a really smaller module and costs no more.

    Args:
        graph: Channel graph of `model`.
        model: The dense model on the device; read only.
        recover: Called after the cut.
        calibration: (N, ...) images for `recover`.
    """

    def __init__(
        self, graph: ChannelGraph, model: nn.Module, recover: Recover, calibration: torch.Tensor
    ) -> None:
        self._graph = graph
        self._model = model
        self._recover = recover
        self._calibration = calibration

    def candidate(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The pruned and recovered module, eval mode, its storage its own."""
        pruned = self._graph.prune(self._model, keep).eval()
        self._recover(pruned, self._calibration)
        return pruned

    @contextmanager
    def running(self, keep: NDArray[np.bool_]) -> Iterator[nn.Module]:
        """See `Strategy.running`."""
        yield self.candidate(keep)


class Masked:
    """The strategy that zeroes: one full-size module whose removed channels nobody reads.

    Shapes and addresses never change, which is what graph capture needs. The consumers' weights for
    removed channels are zero inside the block and restored after it; a removed channel still
    computes, so a value that is not finite there spreads, which it does not in `Sliced`.

    Args:
        graph: Channel graph of `model`, no norm of which takes statistics over channels.
        model: The dense model on the device; copied.
        recover: May change buffers only.
        calibration: (N, ...) images for `recover`.

    Raises:
        ValueError: A norm takes statistics over channels, so that removed ones would count.
    """

    def __init__(
        self, graph: ChannelGraph, model: nn.Module, recover: Recover, calibration: torch.Tensor
    ) -> None:
        if graph.normalised:
            raise ValueError(
                f"strategy 'masked': {graph.normalised[0].module!r} takes statistics over channels "
                "that can be removed; use 'sliced'"
            )
        self._model = copy.deepcopy(model).eval()
        self._recover = recover
        self._calibration = calibration
        dense = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        reading = [slot for slot in graph.slots if slot.consumes]
        self._slots = [(own[slot.tensor], slot.dim, slot.channels) for slot in reading]
        touched = {slot.tensor for slot in reading} | dict(model.named_buffers()).keys()
        self._touched = [(own[name], dense[name]) for name in sorted(touched)]

    @contextmanager
    def running(self, keep: NDArray[np.bool_]) -> Iterator[nn.Module]:
        """See `Strategy.running`; one block at a time."""
        gone = ~np.append(keep, True)  # channel -1 reads the last entry: never removed
        try:
            with torch.no_grad():
                for tensor, dim, channels in self._slots:
                    index = np.flatnonzero(gone[channels])
                    if index.size:
                        tensor.index_fill_(dim, torch.from_numpy(index).to(tensor.device), 0)
            self._recover(self._model, self._calibration)
            yield self._model
        finally:
            with torch.no_grad():
                for tensor, original in self._touched:
                    tensor.copy_(original)
