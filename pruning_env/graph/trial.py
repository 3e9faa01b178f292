"""The trial: prunes half of everything once, and compares with the masked model.

It finds what no trace can show, numbers of channels that are written into `forward`, and says where
they are. It knows nothing of labels and operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pruning_env.graph.surgery import Keep, named_tensors, structure_copy

if TYPE_CHECKING:
    from pruning_env.graph.channel_graph import ChannelGraph


def failing_groups(
    graph: ChannelGraph,
    model: nn.Module,
    example: Tensor | tuple[Tensor, ...],
    doubtful: NDArray[np.int64],
) -> dict[int, str]:
    """Groups whose pruned model does not run, or differs from the masked one, and how.

    Catches what no trace shows: numbers of channels written into `forward`. All groups are tried at
    once; only when that fails are they told apart, by halving.

    Args:
        graph: The graph of `model`.
        model: The dense model.
        example: Its example input.
        doubtful: Groups to suspect first, as indices.
    """
    example = example if isinstance(example, tuple) else (example,)
    trial = _Trial(graph, model, tuple(_noise(x) for x in example))
    rank = graph.rank(np.random.default_rng(0).random(graph.num_channels))
    half = np.random.default_rng(1).binomial(graph.sizes, 0.5).clip(1, graph.sizes - 1)
    keep, least = (graph.keep_top(rank, n) for n in (half, np.ones_like(graph.sizes)))

    known: dict[bytes, str | None] = {}

    def fault(groups: NDArray[np.int64]) -> str | None:
        if (key := groups.tobytes()) not in known:
            others = ~np.isin(graph.group_index, groups)
            known[key] = trial.fault(keep | others) or trial.stop(least | others)
        return known[key]

    failing: dict[int, str] = {}
    left = np.arange(len(graph.groups))
    while len(left) and (found := fault(left)) is not None:
        told = _tell_apart(fault, np.intersect1d(left, doubtful))
        told |= _tell_apart(fault, np.setdiff1d(left, doubtful))
        failing |= told or dict.fromkeys(left.tolist(), found)
        left = np.setdiff1d(left, list(failing))
    return failing


# Not a closure: one that calls itself is a reference cycle, and keeps the model until the collector
# comes by.
def _tell_apart(
    fault: Callable[[NDArray[np.int64]], str | None], groups: NDArray[np.int64]
) -> dict[int, str]:
    """The failing ones of `groups`, found by halving."""
    found = fault(groups) if len(groups) else None
    if found is None:
        return {}
    if len(groups) == 1:
        return {int(groups[0]): found}
    half = len(groups) // 2
    failing = _tell_apart(fault, groups[:half]) | _tell_apart(fault, groups[half:])
    return failing or dict.fromkeys(groups.tolist(), found)  # harmless alone, wrong together


# Weights of larger models are not copied in double precision: memory.
_DOUBLE_LIMIT = 100_000_000

# Outputs that agree this well in the model's own precision would pass in double precision, too: a
# difference that passes there, by `_DOUBLE`, is ten times as large.
_PLAIN, _DOUBLE = 1e-5, 1e-4


class _Trial:
    """Prunes a noisy twin of a model and compares it with the masked one.

    Args:
        graph: The graph of `model`.
        model: The dense model.
        inputs: What to run it on.
    """

    def __init__(self, graph: ChannelGraph, model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._graph, self._inputs = graph, inputs
        self._model = _jittered(model).eval()
        self._exact: tuple[nn.Module, tuple[Tensor, ...], float] | None = None
        self._is_random: bool | None = None
        if not _floats(self._model, inputs) <= _FULL:  # few operators have kernels for less
            self._model, self._inputs, _ = self._precise()
        self._training: tuple[Tensor, ...] | None = None
        if graph.train_only:
            doubled = tuple(torch.cat([x, x]) if x.dim() else x for x in self._inputs)
            if not isinstance(_outputs(self._dense(self._model).train(), doubled), str):
                self._training = doubled

    def fault(self, keep: Keep) -> str | None:
        """How the pruned model fails to run or to compute what the masked one does, if it does."""
        pruned = self._graph.prune(self._model, keep)
        given = _outputs(pruned, self._inputs)
        if isinstance(given, str):
            return given
        expected = _outputs(self._graph.mask(self._model, keep), self._inputs)
        if isinstance(expected, str):
            return expected
        if [x.shape for x in given] != [x.shape for x in expected]:
            return "another shape comes out"
        if self._training is not None:
            trained = _outputs(pruned.train(), self._training)
            if isinstance(trained, str):
                return trained
        plain = all(map(_finite, expected)) and _all_close(given, expected, _PLAIN)
        if plain or self._agrees(keep, given, expected) or self._draws_numbers():
            return None
        return "it computes something else"

    def stop(self, keep: Keep) -> str | None:
        """How the pruned model fails to run, if it does."""
        given = _outputs(self._graph.prune(self._model, keep), self._inputs)
        return given if isinstance(given, str) else None

    def _agrees(self, keep: Keep, given: list[Tensor] | str, expected: list[Tensor] | str) -> bool:
        """Whether pruned and masked models agree, as far as rounding lets one see.

        Args:
            keep: The channels that stay.
            given: What the pruned twin returned, in its own precision.
            expected: What the masked one did.
        """
        model, inputs, tolerance = self._precise()
        if model is not self._model:
            given = _outputs(self._graph.prune(model, keep), inputs)
            expected = _outputs(self._graph.mask(model, keep), inputs)
        return _all_close(given, expected, tolerance)

    def _precise(self) -> tuple[nn.Module, tuple[Tensor, ...], float]:
        """The twin and its inputs in double precision where that can be had, and a tolerance.

        float32 rounding grows with depth; a channel in the wrong place is mostly off by the size of
        the output, but in a layer of little weight it is not.
        """
        if self._exact is None:
            tolerance = 1e-3 if _floats(self._model, self._inputs) <= _FULL else 0.3
            self._exact = self._model, self._inputs, tolerance
            if sum(p.numel() for p in self._model.parameters()) <= _DOUBLE_LIMIT:
                double = self._dense(self._model).double()
                widened = tuple(x.double() if x.is_floating_point() else x for x in self._inputs)
                if not isinstance(_outputs(double, widened), str):
                    self._exact = double, widened, _DOUBLE
        return self._exact

    def _dense(self, model: nn.Module) -> nn.Module:
        """A twin with tensors of its own, which running it may change."""
        return self._graph.prune(model, self._graph.full())

    def _draws_numbers(self) -> bool:
        """Whether the dense model answers the same question differently, so only shapes count."""
        if self._is_random is None:
            model, inputs, tolerance = self._precise()
            dense = self._dense(model)
            first, again = (_outputs(dense, inputs) for _ in range(2))
            self._is_random = not _all_close(again, first, tolerance)
        return self._is_random


_FULL = frozenset((torch.float32, torch.float64))


def _floats(model: nn.Module, inputs: tuple[Tensor, ...]) -> set[torch.dtype]:
    return {t.dtype for t in (*inputs, *model.parameters()) if t.is_floating_point()}


def _all_close(given: list[Tensor] | str, expected: list[Tensor] | str, tolerance: float) -> bool:
    """Whether outputs agree; integers, and what is not finite, say nothing."""
    if isinstance(given, str) or isinstance(expected, str):
        return False
    return all(
        not y.is_floating_point() or not _finite(y) or _close(x, y, tolerance)
        for x, y in zip(given, expected, strict=True)
    )


def _finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(torch.isfinite(x).all())


def _close(given: Tensor, expected: Tensor, tolerance: float) -> bool:
    scale = expected.abs().max().clamp_min(1e-30)
    return bool((given - expected).abs().max() <= tolerance * scale)


def _outputs(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[Tensor] | str:
    """Every tensor that a model returns; the error and its place if it does not run."""
    with torch.no_grad():
        try:
            output = model(*inputs)
        # A shape that its code did not expect can surface as anything its author raises.
        except Exception as error:
            return f"{type(error).__name__} in {_place(error, model)}"
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def _place(error: Exception, model: nn.Module) -> str:
    """The innermost module in whose forward an error arose."""
    names = {id(module): name for name, module in model.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        place = names.get(id(trace.tb_frame.f_locals.get("self")), place)
        trace = trace.tb_next
    return place or "the model"


def _noise(x: Tensor) -> Tensor:
    if not x.is_floating_point():
        return x
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)


def _jittered(model: nn.Module) -> nn.Module:
    """A copy that shares the large weights and has noise on constant ones.

    Freshly built norms (weight 1, bias 0) and zero heads would hide channels in the wrong order.
    """
    generator = torch.Generator().manual_seed(0)
    tensors = dict(named_tensors(model))
    changed = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if value.is_floating_point() and (
            value.dim() <= 1 or bool((value == value.flatten()[:1]).all())
        ):
            noise = torch.rand(value.shape, generator=generator).to(value)
            value = value * (0.75 + 0.5 * noise) + 0.02 * noise
        changed[name] = nn.Parameter(value) if isinstance(tensor, nn.Parameter) else value
    return structure_copy(model, tensors, changed)
