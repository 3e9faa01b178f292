"""`Weights`: the trained tensors of one pruned network, as a value that travels with a state.

A snapshot owns copies that nobody else sees, so that states which share one can be kept, compared
and resumed in any order. Knows nothing of training, data or episodes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Weights", "spread"]


class Weights:
    """Parameters and buffers of a network pruned to one keep mask. Immutable.

    Equal when mask and all tensors are, bit for bit; hashable; pickles (its tensors then come back
    on the CPU).

    Args:
        model: The pruned network; its tensors are copied.
        keep: (C,) bool, what it was pruned to.

    Attributes:
        keep: (C,) bool, read-only.
        fingerprint: Hash of mask, names and contents.
    """

    def __init__(self, model: nn.Module, keep: NDArray[np.bool_]) -> None:
        self._adopt(keep, {name: t.detach().clone() for name, t in _named_tensors(model)})

    def _adopt(self, keep: NDArray[np.bool_], tensors: Mapping[str, torch.Tensor]) -> None:
        self.keep = np.array(keep, dtype=np.bool_)
        self.keep.setflags(write=False)
        self._tensors = dict(tensors)
        digest = hashlib.sha256(self.keep.tobytes())
        for name, tensor in self._tensors.items():
            raw = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(raw.tobytes())
        self.fingerprint = digest.digest()

    def load(self, graph: ChannelGraph, model: nn.Module, keep: NDArray[np.bool_]) -> None:
        """Copy these tensors, cut down to `keep`, into a network that is pruned to it.

        Args:
            graph: Of the dense network.
            model: From `graph.prune(dense, keep)`; changed in place.
            keep: (C,) bool; every channel must be in `self.keep`.

        Raises:
            ValueError: `keep` has channels that these weights lack, or the model is another.
        """
        if self.keep.shape != keep.shape or (keep & ~self.keep).any():
            raise ValueError("keep has channels that the weights lack; give a subset of theirs")
        had, has = np.append(self.keep, True), np.append(keep, True)
        cuts: dict[str, list[tuple[int, torch.Tensor]]] = {}
        for slot in graph.slots:
            old, new = np.flatnonzero(had[slot.channels]), np.flatnonzero(has[slot.channels])
            if len(new) < len(old):
                index = torch.from_numpy(np.searchsorted(old, new))
                cuts.setdefault(slot.tensor, []).append((slot.dim, index))
        own = dict(_named_tensors(model))
        if own.keys() != self._tensors.keys():
            odd = sorted(own.keys() ^ self._tensors.keys())
            raise ValueError(f"weights are of another network: they differ in {odd[:5]}")
        with torch.no_grad():
            for name, tensor in self._tensors.items():
                for dim, index in cuts.get(name, ()):
                    tensor = tensor.index_select(dim, index.to(tensor.device))
                if tensor.shape != own[name].shape:
                    raise ValueError(f"weights are of another network: they differ in {name}")
                own[name].copy_(tensor)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weights) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"Weights({self.fingerprint.hex()[:12]})"

    def __copy__(self) -> Weights:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Weights:
        return self

    def __getstate__(self) -> tuple[NDArray[np.bool_], dict[str, torch.Tensor]]:
        return self.keep, {name: tensor.cpu() for name, tensor in self._tensors.items()}

    def __setstate__(self, saved: tuple[NDArray[np.bool_], dict[str, torch.Tensor]]) -> None:
        self._adopt(*saved)


def spread(
    graph: ChannelGraph,
    pruned: nn.Module,
    keep: NDArray[np.bool_],
    dense: Mapping[str, torch.Tensor],
) -> None:
    """Write a pruned network's tensors into full-size ones, at the places of the channels kept.

    Args:
        graph: Of the dense network.
        pruned: Pruned to `keep`.
        keep: (C,) bool.
        dense: By name, tensors of the dense network's shapes; changed in place, but not at the
            places of removed channels.
    """
    kept, own = np.append(keep, True), dict(_named_tensors(pruned))
    with torch.no_grad():
        for name, tensor in dense.items():
            places = [torch.arange(size, device=tensor.device) for size in tensor.shape]
            for dim, place in graph.cuts.tensors.get(name, ()):
                index = np.flatnonzero(kept[graph.cuts.channels[place]])
                places[dim] = torch.from_numpy(index).to(tensor.device)
            if places:
                tensor[torch.meshgrid(*places, indexing="ij")] = own[name]
            else:
                tensor.copy_(own[name])


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, each once."""
    yield from model.named_parameters()
    yield from model.named_buffers()
