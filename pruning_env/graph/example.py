"""The example that a model is traced on: its form, whether the model accepts it, what it caches.

Knows nothing of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from pruning_env.graph.copies import (
    holds_tensors,
    named_tensors,
    structure_copy,
    without_tensors,
)
from pruning_env.graph.draws import seed_all

Cache = tuple[str, str]


@dataclass(frozen=True)
class Example:
    """What a model is called with.

    Attributes:
        args: Inputs by position: tensors, None, numbers, and tuples, lists and dicts of these.
        kwargs: Inputs by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, example_input: Any, example_kwargs: Mapping[str, Any] | None) -> Example:
        """The example that `ChannelGraph.trace` was given.

        Raises:
            ValueError: When there is no tensor in it, an empty one, or what is no input.
        """
        args = example_input if type(example_input) is tuple else (example_input,)
        example = cls(args, dict(example_kwargs or {}))
        allowed = "tensors, numbers, None, and tuples, lists and dicts of these"
        for leaf in tree_leaves((example.args, example.kwargs)):
            if not isinstance(leaf, (Tensor, bool, int, float, str, type(None))):
                raise ValueError(
                    f"example_input holds an object of class {type(leaf).__name__}; allowed are "
                    + allowed
                )
        if not example.tensors:
            raise ValueError(
                f"example_input must hold a tensor, got {type(example_input).__name__} without one;"
                f" allowed are {allowed}"
            )
        for tensor in example.tensors:
            if tensor.numel() == 0:
                raise ValueError(
                    f"example_input holds an empty tensor of shape {tuple(tensor.shape)}; give at "
                    "least one image"
                )
        return example

    @property
    def tensors(self) -> list[Tensor]:
        """Every tensor, in order."""
        leaves = tree_leaves((self.args, dict(self.kwargs)))
        return [leaf for leaf in leaves if isinstance(leaf, Tensor)]

    @property
    def batch(self) -> int:
        """Images in it: the length of the first tensor; 1 where that has no dimensions."""
        first = self.tensors[0]
        return first.shape[0] if first.dim() else 1

    def map(self, change: Callable[[Tensor], Tensor]) -> Example:
        """The example with other tensors."""

        def changed(leaf: Any) -> Any:
            return change(leaf) if isinstance(leaf, Tensor) else leaf

        return Example(tree_map(changed, self.args), tree_map(changed, dict(self.kwargs)))

    def double(self) -> Example:
        """The example in double precision."""
        return self.map(lambda x: x.double() if x.is_floating_point() else x)

    def run(self, model: nn.Module) -> Any:
        """What a model returns for it, without gradients, its draws alike; the tensors stay."""
        seed_all()
        given = self.map(torch.clone)
        with torch.no_grad():
            return model(*given.args, **given.kwargs)


def shared_twin(model: nn.Module, caches: Collection[Cache] = ()) -> nn.Module:
    """A copy with the very tensors of `model`, whose attributes may be changed."""
    tensors = dict(named_tensors(model))
    twin = structure_copy(model, tensors, tensors)
    for path, name in caches:
        attributes = twin.get_submodule(path).__dict__
        attributes[name] = without_tensors(attributes[name])
    return twin


def separate_twin(model: nn.Module) -> nn.Module:
    """A copy with tensors of its own."""
    tensors = dict(named_tensors(model))
    return structure_copy(
        model,
        tensors,
        {
            name: nn.Parameter(t.detach().clone(), t.requires_grad)
            if isinstance(t, nn.Parameter)
            else t.detach().clone()
            for name, t in tensors.items()
        },
    )


def caches(model: nn.Module, example: Example) -> tuple[Cache, ...]:
    """Run a model on its example, and say what it keeps from one call to the next.

    A cache is an attribute that holds tensors (in a dict or a list, or as it is) which a second
    call leaves there, and without which the model computes the same and fills it again.

    Args:
        model: Left as it was.
        example: Its example.

    Returns:
        `(module, attribute)` of each cache.

    Raises:
        ValueError: When the model does not accept the example.
    """
    model = separate_twin(model).eval()
    try:
        expected = example.run(model)
    except Exception as error:
        try:  # of half precision a CPU computes less than the device that the model is for
            if not any(t.dtype in _HALF for t in (*model.parameters(), *example.tensors)):
                raise
            model, example = model.double(), example.double()
            expected = example.run(model)
        except Exception:
            raise ValueError(_refusal(model, example, error)) from error
    kept = _held(model)
    if not kept:
        return ()
    example.run(model)
    stay = [c for c, value in _held(model).items() if _identities(kept.get(c)) & _identities(value)]
    if _refilled(model, example, expected, stay):
        return tuple(stay)
    return tuple(cache for cache in stay if _refilled(model, example, expected, [cache]))


_HALF = frozenset((torch.float16, torch.bfloat16))


def _refusal(model: nn.Module, example: Example, error: Exception) -> str:
    shapes = ", ".join(
        f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}" for t in example.tensors
    )
    text = (str(error).strip().splitlines() or [""])[0]
    message = (
        f"example_input: {type(model).__name__} does not accept it in eval mode "
        f"({type(error).__name__}: {text}); got {shapes}"
    )
    weights = {p.dtype for p in model.parameters() if p.is_floating_point()}
    given = {t.dtype for t in example.tensors if t.is_floating_point()}
    places = {str(p.device) for p in model.parameters()}
    if weights and given - weights:
        message += f"; the model's parameters are {', '.join(sorted(map(str, weights)))}"
    if places and {str(t.device) for t in example.tensors} != places:
        message += f"; the model is on {', '.join(sorted(places))}"
    return message


def _held(model: nn.Module) -> dict[Cache, Any]:
    """Attributes that hold tensors and are neither parameters, buffers nor hooks."""
    return {
        (path, name): value
        for path, module in model.named_modules()
        for name, value in module.__dict__.items()
        if name not in _MODULE and (isinstance(value, _CONTAINERS)) and holds_tensors(value)
    }


_MODULE = frozenset(nn.Module().__dict__)
_CONTAINERS = (Tensor, dict, list, tuple)


def _identities(value: Any) -> set[int]:
    return {id(leaf) for leaf in tree_leaves(value) if isinstance(leaf, Tensor)}


def _refilled(model: nn.Module, example: Example, expected: Any, emptied: list[Cache]) -> bool:
    """Whether a model without the contents of these caches fills them, and returns the same."""
    twin = shared_twin(model, emptied)
    try:
        given = example.run(twin)
    except Exception:  # whatever its code raises at a place that is empty
        return False
    again = _held(twin)
    new, old = tree_leaves(given), tree_leaves(expected)
    return (
        all(cache in again for cache in emptied)
        and len(new) == len(old)
        and all(
            torch.equal(a.nan_to_num(), b.nan_to_num())
            for a, b in zip(new, old, strict=True)
            if isinstance(a, Tensor) and isinstance(b, Tensor)
        )
    )
