"""How a candidate is run: cut out of the dense model, or masked inside it.

A strategy runs, for the time of a `with` block, what one or several pruned and recovered networks
compute; the one for several at once is in batched.py, the one that compiles in compiled.py. All
agree to numerical tolerance. Knows nothing of caches, splits or how the choice among strategies is
made (planning.py).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.evaluation.metrics import BatchSize, Metrics, Outputs, measure_together
from pruning_env.evaluation.weights import spread
from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Masked", "Recover", "Refit", "Sliced", "Strategy", "check_maskable", "measure_all"]

Recover = Callable[[nn.Module, torch.Tensor], None]
"""(candidate, calibration images): changes the candidate in place."""


class Refit(Protocol):
    """Pruning that also changes weights, such as `Reconstruction`."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that it may change."""
        ...

    def pruned(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The network pruned to a valid mask, eval mode, storage its own."""
        ...


class Strategy(Protocol):
    """A way of running candidates. All give the same results to numerical tolerance.

    Attributes:
        at_once: Most candidates that a block takes.
    """

    at_once: int

    def running(self, keeps: Sequence[NDArray[np.bool_]]) -> AbstractContextManager[Outputs]:
        """The pruned and recovered networks of 1 to `at_once` valid masks; only for the block."""
        ...


def measure_all(
    strategy: Strategy,
    keeps: Sequence[NDArray[np.bool_]],
    images: torch.Tensor,
    labels: torch.Tensor,
    batch_size: BatchSize,
) -> list[Metrics]:
    """Judge each of the masks, in order; no more candidates than `at_once` live at a time.

    A forward pass takes `batch_size` images, counting an image once for every candidate; where that
    is more than the memory can take, it is lowered.
    """
    results = []
    for start in range(0, len(keeps), strategy.at_once):
        chunk = keeps[start : start + strategy.at_once]
        shown = BatchSize(max(1, batch_size.images // len(chunk)))
        planned = shown.images
        with strategy.running(chunk) as outputs:
            results += measure_together(outputs, images, labels, shown)
        if shown.images < planned:
            batch_size.images = shown.images * len(chunk)
    return results


class _OneByOne(ABC):
    """A strategy whose candidates are modules, of which one lives at a time."""

    at_once = 1

    @abstractmethod
    def network(self, keep: NDArray[np.bool_]) -> AbstractContextManager[nn.Module]:
        """The pruned and recovered network of a valid mask, eval mode; only for the block."""

    @contextmanager
    def running(self, keeps: Sequence[NDArray[np.bool_]]) -> Iterator[Outputs]:
        """See `Strategy.running`."""
        (keep,) = keeps
        with self.network(keep) as candidate:
            yield lambda images: candidate(images).unsqueeze(0)


class Sliced(_OneByOne):
    """The strategy that cuts: a candidate becomes a really smaller module and costs no more.

    Args:
        graph: Channel graph of `model`.
        model: The dense model on the device; read only.
        recover: Called after the cut.
        calibration: (N, ...) images for `recover`.
        refit: Makes the cut instead of the graph; None: weights stay.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        recover: Recover,
        calibration: torch.Tensor,
        refit: Refit | None = None,
    ) -> None:
        self._graph = graph
        self._model = model
        self._recover = recover
        self._calibration = calibration
        self._refit = refit

    def candidate(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The pruned and recovered module, eval mode, its storage its own."""
        if self._refit is None:
            pruned = self._graph.prune(self._model, keep).eval()
        else:
            pruned = self._refit.pruned(keep)
        self._recover(pruned, self._calibration)
        return pruned

    @contextmanager
    def network(self, keep: NDArray[np.bool_]) -> Iterator[nn.Module]:
        """`candidate`, as a block."""
        yield self.candidate(keep)


class Masked(_OneByOne):
    """The strategy that zeroes: one full-size module whose removed channels nobody reads.

    Shapes and addresses never change, which is what graph capture needs. The consumers' weights for
    removed channels are zero inside the block and restored after it; a removed channel still
    computes, so a value that is not finite there spreads, which it does not in `Sliced`.

    Args:
        graph: Channel graph of `model`, no norm of which takes statistics over channels.
        model: The dense model on the device; copied.
        recover: May change buffers only.
        calibration: (N, ...) images for `recover`.
        refit: What it changes in the pruned network is changed here; None: weights stay.

    Raises:
        ValueError: A norm takes statistics over channels, so that removed ones would count.
    """

    name = "masked"

    def __init__(
        self,
        graph: ChannelGraph,
        model: nn.Module,
        recover: Recover,
        calibration: torch.Tensor,
        refit: Refit | None = None,
    ) -> None:
        check_maskable(self.name, graph)
        self._model = copy.deepcopy(model).eval()
        self._graph = graph
        self._recover = recover
        self._calibration = calibration
        self._refit = refit
        dense = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        own = {**dict(self._model.named_parameters()), **dict(self._model.named_buffers())}
        reading = [slot for slot in graph.slots if slot.consumes]
        self._slots = [(own[slot.tensor], slot.dim, slot.channels) for slot in reading]
        touched = {slot.tensor for slot in reading} | dict(model.named_buffers()).keys()
        self._refitted = {} if refit is None else {name: own[name] for name in refit.tensors}
        touched |= self._refitted.keys()
        self._touched = [(own[name], dense[name]) for name in sorted(touched)]

    @contextmanager
    def network(self, keep: NDArray[np.bool_]) -> Iterator[nn.Module]:
        """The full-size module, masked and recovered; one block at a time."""
        gone = ~np.append(keep, True)  # channel -1 reads the last entry: never removed
        try:
            if self._refit is not None:
                spread(self._graph, self._refit.pruned(keep), keep, self._refitted)
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


def check_maskable(strategy: str, graph: ChannelGraph) -> None:
    """Raise `ValueError` where a removed channel that is only zeroed would count in a norm."""
    if graph.normalised:
        raise ValueError(
            f"strategy {strategy!r}: {graph.normalised[0].module!r} takes statistics over channels "
            "that can be removed; use 'sliced'"
        )
