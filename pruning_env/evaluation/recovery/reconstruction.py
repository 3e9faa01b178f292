"""The recovery in closed form: every layer of a pruned network is fitted to what it said before.

Knows nothing of how candidates are run, of accuracy or of states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning_env.evaluation.precision import arithmetic
from pruning_env.evaluation.recovery.batch_norm import (
    CALIBRATION_BATCH,
    batch_norms,
    batch_statistics,
)
from pruning_env.evaluation.recovery.patches import (
    inputs_at,
    is_linear,
    outputs_at,
    places_of,
    set_weights,
    weights_of,
)
from pruning_env.evaluation.recovery.ridge import ridge_step
from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["ROWS", "Reconstruction"]

ROWS = 8192
"""Most places per layer, drawn once from all images and positions, where its outputs are fitted."""

WORK = 2**32
"""Most multiply-accumulates of a layer's normal equations, places times inputs squared, about.

Layers that read thousands of inputs, VGG-16's last ones, are fitted at fewer places: those would
take longer than judging the network on search-val.
"""

_NUMBERS = 2**21
"""Numbers in the images of the one pass, which needs all of them at once; or a batch, if larger."""


@dataclass(frozen=True)
class _Target:
    """What a layer of the dense network says.

    Attributes:
        places: (R,) int64, where.
        shape: Of its whole output.
        outputs: (R, outputs).
        norm: Path of the batch norm that takes its outputs as they are, or None.
    """

    places: Tensor
    shape: torch.Size
    outputs: Tensor
    norm: str | None


class Reconstruction:
    """Prunes networks and fits what is left to the outputs of the dense network's layers.

    Layer by layer, in the order in which they run: given what a layer reads in the pruned network
    as it is so far, its weights become those that bring its outputs closest, in the least squares,
    to what it says in the dense network. So channels that are gone are spoken for by those that it
    still reads, and what earlier layers could not make good is made good later. The unknowns are
    all taps of a kernel; constants go into the layer's bias, or into the running mean of a batch
    norm that follows. Such batch norms keep the statistics of the dense network otherwise, because
    their inputs are the dense ones as far as possible; all others are re-estimated. One forward
    pass per network. The fit is a ridge regression of the weights' change, see `ridge_step`: no
    layer's outputs are further from the dense ones than without it, where it is fitted.

    A layer keeps its weights where it is none of torch's linear layers and (transposed)
    convolutions, pads with anything but zeros, is called more than once, or shares its weights; and
    where the fit is not finite. The full mask changes nothing.

    Chosen by measurement, ResNet-20 at half the MACs, 2,000 images of search-val, the same share of
    all groups, and a random allocation: batch norm alone 53.8 and 41.1 %; removed channels written
    as combinations of kept ones, from moments of the dense network: 69.2 and 44.4 %, with all taps
    as unknowns 77.9 and 48.7 %; this, with all batch norms re-estimated, meanwhile and afterwards,
    83.5 and 77.0 %; this 83.6 and 80.1 %.

    Source: He, Zhang and Sun 2017, "Channel Pruning for Accelerating Very Deep Neural Networks",
    section 3.2 (inputs of the network as pruned so far, outputs of the dense one), without its
    choice of channels and its correction of residual sums.

    Args:
        graph: Channel graph of `model`.
        model: The dense network on its device, eval mode; read only.
        images: (N, ...) calibration images; those used lie at equal distances among them.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module, images: Tensor) -> None:
        self._graph = graph
        self._model = model
        number = min(len(images), max(CALIBRATION_BATCH, _NUMBERS // images[0].numel()))
        self._images = images[torch.arange(number) * len(images) // number]
        self._owners = {(slot.tensor, slot.dim): slot.channels for slot in graph.slots}

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that may differ from the dense network's, cut to the same mask."""
        fitted = (
            f"{path}.{name}"
            for path in self._targets
            for name, _ in self._model.get_submodule(path).named_parameters()
        )
        return (*fitted, *(name for name, _ in self._model.named_buffers()))

    def pruned(self, keep: NDArray[np.bool_]) -> nn.Module:
        """The network pruned to a valid mask, (C,) bool, and fitted; eval mode, storage its own."""
        network = self._graph.prune(self._model, keep).eval()
        if keep.all():
            return network
        kept = np.append(keep, True)  # channel -1 reads the last entry: never removed
        norms = batch_norms(network)

        def fit(path: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            target = self._targets[path]
            norm = None if target.norm is None else norms[target.norm]
            _fit(layer, inputs[0], target, self._outputs_kept(path, kept), norm)

        followers = {target.norm for target in self._targets.values()}
        others = [norm for path, norm in norms.items() if path not in followers]
        layers = {path: network.get_submodule(path) for path in self._targets}
        with self._running(), batch_statistics(others), _before(layers, fit):
            network(self._images)
        return network

    @cached_property
    def _targets(self) -> dict[str, _Target]:
        """By the paths of the layers that can be fitted; one pass of the dense network."""
        generator = torch.Generator().manual_seed(0)
        paths = {id(norm): path for path, norm in batch_norms(self._model).items()}
        latest: tuple[str, Any] = ("", None)
        found: dict[str, _Target] = {}
        followers: dict[str, str] = {}
        calls: list[str] = []

        def look(path: str, layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            nonlocal latest
            latest = path, output
            calls.append(path)
            total = places_of(layer, output)
            # Sampling on the CPU: every device draws the same.
            places = torch.randperm(total, generator=generator)[:ROWS].to(output.device)
            found[path] = _Target(places, output.shape, outputs_at(layer, output, places), None)

        def follow(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
            calls.append(paths[id(norm)])
            if inputs[0] is latest[1]:
                followers[latest[0]] = paths[id(norm)]

        with self._running(), ExitStack() as hooks:
            for path, layer in self._model.named_modules():
                if is_linear(layer) and self._owns_weights(path, layer):
                    hooks.callback(layer.register_forward_hook(partial(look, path)).remove)
                elif id(layer) in paths:
                    hooks.callback(layer.register_forward_pre_hook(follow).remove)
            self._model(self._images)
        # A norm of several layers has one mean, which cannot hold a constant for each.
        once = {path for path in calls if calls.count(path) == 1}
        own = {path: norm for path, norm in followers.items() if norm in once}
        return {
            path: replace(target, norm=own.get(path))
            for path, target in found.items()
            if path in once and len(target.outputs)
        }

    def _owns_weights(self, path: str, layer: nn.Module) -> bool:
        """Whether no other module has a tensor of this layer."""
        names = (f"{path}.{name}" for name, _ in layer.named_parameters())
        shared = {
            *self._graph.aliases,
            *(n for names in self._graph.aliases.values() for n in names),
        }
        return shared.isdisjoint(names)

    def _outputs_kept(self, path: str, kept: NDArray[np.bool_]) -> Tensor | None:
        """Which outputs of a layer the pruned network has; None for all."""
        layer: Any = self._model.get_submodule(path)
        first, second = (self._owners.get((f"{path}.weight", dim)) for dim in (0, 1))
        channels = first
        if getattr(layer, "transposed", False):
            channels = None
            if second is not None:  # every group makes the same channels
                channels = np.tile(second, layer.groups)
            elif first is not None and layer.groups > 1:  # depthwise
                channels = np.repeat(first, layer.weight.shape[1])
        if channels is None or kept[channels].all():
            return None
        return torch.from_numpy(np.flatnonzero(kept[channels])).to(self._images.device)

    @contextmanager
    def _running(self) -> Iterator[None]:
        """No gradients, and no rounding but the model's own."""
        with torch.inference_mode(), arithmetic("float32", self._images.device):
            yield


def _fit(layer: Any, x: Tensor, target: _Target, outputs: Tensor | None, norm: Any) -> None:
    """Change the weights of a layer that is about to be called with `x`.

    Args:
        layer: In the pruned network.
        x: Its input there.
        target: What it says in the dense network.
        outputs: Which of the target's outputs it has; None for all.
        norm: The batch norm that follows in the pruned network, or None.
    """
    weights = weights_of(layer)
    groups, inputs, _ = weights.shape
    rows = max(1, WORK // (groups * inputs**2))
    wanted = target.outputs[:rows] if outputs is None else target.outputs[:rows, outputs]
    read = inputs_at(layer, x, target.shape, target.places[:rows])
    missing = wanted.view(len(wanted), groups, -1).transpose(0, 1) - read @ weights
    if layer.bias is not None:
        missing = missing - layer.bias.view(groups, 1, -1)
    if missing.norm() <= torch.finfo(x.dtype).eps ** 0.5 * wanted.norm():
        return  # no more than rounding
    step, shift = ridge_step(read, missing, layer.bias is not None or norm is not None)
    if not (step.isfinite().all() and shift.isfinite().all()):
        return
    set_weights(layer, weights + step)
    if layer.bias is not None:
        layer.bias.add_(shift.flatten())
    elif norm is not None:
        norm.running_mean.sub_(shift.flatten())


@contextmanager
def _before(
    layers: Mapping[str, nn.Module], act: Callable[[str, nn.Module, tuple[Any, ...]], None]
) -> Iterator[None]:
    """Inside, `act(name, layer, inputs)` is called before each call of a layer."""
    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_pre_hook(partial(act, name)).remove)
        yield
