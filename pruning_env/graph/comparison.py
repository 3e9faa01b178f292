"""Runs a pruned model and its masked twin on noise, and says how they differ if they do.

Knows nothing of labels and operators, nor which masks are worth a try: that is `trial`'s business.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from pruning_env.graph import surgery
from pruning_env.graph.copies import forget, named_tensors, structure_copy
from pruning_env.graph.draws import Watched, is_discrete, seed_all
from pruning_env.graph.example import Example
from pruning_env.graph.leaks import Leaking
from pruning_env.graph.structure import ChannelStructure, Keep

_TRAINING = " in train mode"
_MODEL = "the model"


def in_training(fault: str) -> bool:
    """Whether train mode showed this fault."""
    return fault.endswith(_TRAINING)


def place_of(fault: str) -> str | None:
    """Name of the module in which code stopped with an error, if one did."""
    _, stopped, place = fault.removesuffix(_TRAINING).partition("Error in ")
    return place.replace(_MODEL, "") if stopped else None


# Weights of larger models are not copied in double precision: memory.
_DOUBLE_LIMIT = 100_000_000

# Outputs that agree this well in the model's own precision would pass in double precision, too: a
# difference that passes there, by `_DOUBLE`, is ten times as large.
_PLAIN, _DOUBLE = 1e-5, 1e-4


@dataclass(frozen=True)
class _Run:
    """What a model returned.

    Attributes:
        outputs: Every tensor.
        hidden: Of which integers were made: see `Watched`.
        draws: Random numbers that it drew, as far as it was watched.
    """

    outputs: list[Tensor]
    hidden: list[Tensor]
    draws: int = 0


class Comparison:
    """Prunes a noisy twin of a model and compares it with the masked one.

    The twin's layers are rescaled and flat activations leak, so that what happens in an early layer
    shows at the end whatever the weights that were given and however few channels stay. It has been
    run once: what it keeps from one call to the next is there.

    Args:
        graph: The graph of `model`.
        model: The dense model.
        example: What to run it on; its values do not matter, but those of integers.
    """

    def __init__(self, graph: ChannelStructure, model: nn.Module, example: Example) -> None:
        self._graph, self._example = graph, example.map(_noise)
        self._model = _jittered(model).eval()
        self._exact: tuple[nn.Module, Example, float] | None = None
        self._watch = self._collect = self._leak = False
        if not _floats(self._model, self._example) <= _FULL:  # few operators have kernels for less
            self._model, self._example, _ = self._precise()
        else:
            _rescale(self._model, self._example)
        forget(self._model, graph.caches)
        self._look()
        doubled = self._example.map(_doubled)
        trains = not isinstance(self._run(self._dense().train(), doubled, True), str)
        self._doubled = doubled if trains else None

    @property
    def trains(self) -> bool:
        """Whether the dense model runs in train mode."""
        return self._doubled is not None

    def fault(self, keep: Keep, training: bool = False) -> str | None:
        """How the pruned model fails to run or to compute what the masked one does, if it does."""
        fault = self._fault(keep, training)
        return fault + _TRAINING if fault is not None and training else fault

    def _fault(self, keep: Keep, training: bool) -> str | None:
        given, expected = self._both(self._model, self._example, keep, training)
        for run in (given, expected):
            if isinstance(run, str):
                return run
        assert isinstance(given, _Run) and isinstance(expected, _Run)
        if [x.shape for x in given.outputs] != [x.shape for x in expected.outputs]:
            return "another shape comes out"
        if blind := _blindness(given, expected):
            return blind
        if _agree(given, expected, _PLAIN):
            return None
        model, example, tolerance = self._precise()
        if model is not self._model:
            given, expected = self._both(model, example, keep, training)
        elif training:  # batch statistics make rounding errors as large as any tolerance
            return None
        if isinstance(given, _Run) and isinstance(expected, _Run):
            return None if _agree(given, expected, tolerance) else "it computes something else"
        return "it does not run in double precision"

    def _both(
        self, model: nn.Module, example: Example, keep: Keep, training: bool
    ) -> tuple[_Run | str, _Run | str]:
        """What the pruned and the masked model return; one error for both if the first fails."""
        if training:
            example = example.map(_doubled)
        pruned = self._run(
            surgery.prune(self._graph, model, keep).train(training), example, training
        )
        if isinstance(pruned, str):
            return pruned, pruned
        return pruned, self._run(
            surgery.mask(self._graph, model, keep).train(training), example, training
        )

    def _run(self, model: nn.Module, example: Example, training: bool) -> _Run | str:
        """Every tensor that a model returns; the error and its place if it does not run."""
        seed_all()
        try:
            with Leaking() if self._leak else nullcontext():
                if not (training or self._watch or self._collect):
                    return _Run(_tensors(example.run(model)), [])
                with Watched(self._collect) as watched:
                    output = example.run(model)
        # A shape that its code did not expect can surface as anything its author raises.
        except Exception as error:
            return f"{type(error).__name__} in {_place(error, model)}"
        self._watch |= watched.draws > 0 and not training
        return _Run(_tensors(output), watched.hidden, watched.draws)

    def _look(self) -> None:
        """Whether the model draws numbers, hides what outputs are made from, and may leak."""
        self._watch = True
        plain = self._run(self._model, self._example, False)
        if isinstance(plain, str):  # the noise is not what it expects; every mask will say so
            return
        self._watch = plain.draws > 0
        self._collect = any(map(is_discrete, plain.outputs))
        self._leak = True
        leaking = self._run(self._model, self._example, False)
        # What is rectified may be the argument of a root or a logarithm.
        self._leak = isinstance(leaking, _Run) and _finite(leaking) >= _finite(plain)

    def _precise(self) -> tuple[nn.Module, Example, float]:
        """The twin and its inputs in double precision where that can be had, and a tolerance.

        float32 rounding grows with depth; a channel in the wrong place is mostly off by the size of
        the output, but in a layer of little weight it is not.
        """
        if self._exact is None:
            tolerance = 1e-3 if _floats(self._model, self._example) <= _FULL else 0.3
            self._exact = self._model, self._example, tolerance
            if sum(p.numel() for p in self._model.parameters()) <= _DOUBLE_LIMIT:
                double, widened = self._dense().double(), self._example.double()
                if not isinstance(self._run(double, widened, False), str):
                    self._exact = double, widened, _DOUBLE
        return self._exact

    def _dense(self) -> nn.Module:
        """A twin with tensors of its own, which running it may change."""
        return surgery.prune(self._graph, self._model, self._graph.full())


_FULL = frozenset((torch.float32, torch.float64))


def _floats(model: nn.Module, example: Example) -> set[torch.dtype]:
    return {t.dtype for t in (*example.tensors, *model.parameters()) if t.is_floating_point()}


def _tensors(output: Any) -> list[Tensor]:
    """Every tensor, and every real number, in a nested output."""
    leaves = (torch.tensor(x) if isinstance(x, float) else x for x in tree_leaves(output))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def _finite(run: _Run) -> int:
    """How many real numbers came out."""
    real = (y for y in run.outputs if y.is_floating_point())
    return sum(int(torch.isfinite(y).sum()) for y in real)


def _blindness(given: _Run, expected: _Run) -> str | None:
    """Why two runs cannot be compared, if so."""
    real = [y for y in expected.outputs if y.is_floating_point()]
    if real and not any(bool(torch.isfinite(y).any()) for y in real):
        return "its outputs for noise hold no finite number, so nothing can be compared"
    if expected.hidden and not _pairs(given, expected):
        return "its outputs are integers, and nothing that they are made from can be compared"
    return None


def _pairs(given: _Run, expected: _Run) -> list[tuple[Tensor, Tensor]]:
    """What integers were made of, as far as it is equally wide in both."""
    if len(given.hidden) != len(expected.hidden):
        return []
    pairs = zip(given.hidden, expected.hidden, strict=True)
    return [(x, y) for x, y in pairs if x.shape == y.shape]


def _agree(given: _Run, expected: _Run, tolerance: float) -> bool:
    pairs = [*zip(given.outputs, expected.outputs, strict=True), *_pairs(given, expected)]
    return all(is_discrete(y) or _close(x, y, tolerance) for x, y in pairs)


def _close(given: Tensor, expected: Tensor, tolerance: float) -> bool:
    """Whether what is finite agrees, and what is not is the same."""
    finite = torch.isfinite(expected)
    if not bool(finite.all()):
        if not torch.equal(finite, torch.isfinite(given)):
            return False
        rest = (torch.nan_to_num(t[~finite], 0, 1, -1) for t in (given, expected))
        if not torch.equal(*rest):
            return False
        given, expected = given[finite], expected[finite]
    if not expected.numel():
        return True
    scale = expected.abs().max().clamp_min(1e-30)
    return bool((given - expected).abs().max() <= tolerance * scale)


def _place(error: Exception, model: nn.Module) -> str:
    """The innermost module in whose forward an error arose."""
    names = {id(module): name for name, module in model.named_modules()}
    place, trace = "", error.__traceback__
    while trace is not None:
        place = names.get(id(trace.tb_frame.f_locals.get("self")), place)
        trace = trace.tb_next
    return place or _MODEL


def _doubled(x: Tensor) -> Tensor:
    """Twice as many images, since train mode takes statistics over them.

    Those that are added differ: without any variance a batch norm divides rounding errors by it.
    """
    if not x.dim():
        return x
    return torch.cat([x, x.roll(1, -1) - 0.5 * x if x.is_floating_point() else x])


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
        elif not isinstance(tensor, nn.Parameter):
            value = value.clone()
        changed[name] = nn.Parameter(value) if isinstance(tensor, nn.Parameter) else value
    return structure_copy(model, tensors, changed)


def _rescale(model: nn.Module, example: Example) -> None:
    """Scale the weights of a twin so that no layer's outputs are much larger or smaller than 1.

    Twenty layers as they are initialised shrink a signal by 1e-5 and more. As layer-sequential
    unit variance (Mishkin & Matas 2016, "All you need is a good init"), in one run.
    """
    seed_all()
    with _Rescaling({id(p): p for p in model.parameters()}):
        try:
            example.run(model)
        except Exception:  # the noise is not what it expects; what was scaled until then is
            return


class _Rescaling(TorchFunctionMode):
    """Scales parameters of linear operators when they are first used."""

    def __init__(self, parameters: dict[int, Tensor]) -> None:
        super().__init__()
        self._parameters = parameters

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func not in _LINEAR or not isinstance(result, Tensor):
            return result
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        weight, bias = (self._parameters.pop(id(given.get(k)), None) for k in ("weight", "bias"))
        if weight is None or (bias is None and given.get("bias") is not None):
            return result
        channel = -1 if func is functional.linear else int(result.dim() > 1)
        places = result.movedim(channel, 0).flatten(1).double()
        spread = float((places - places.mean(1, keepdim=True)).square().mean().sqrt())
        if places.shape[1] < 2:
            spread = float(places.square().mean().sqrt())
        if 1 / _SPREAD <= spread <= _SPREAD or not 0 < spread < float("inf"):
            return result
        for tensor in (weight, bias):
            if tensor is not None:
                tensor.data = tensor.data / spread  # the storage is still the given model's
        return result / spread


_SPREAD = 2.0
_LINEAR = frozenset(
    (
        functional.linear,
        *(getattr(functional, f"conv{n}d") for n in (1, 2, 3)),
        *(getattr(functional, f"conv_transpose{n}d") for n in (1, 2, 3)),
    )
)
