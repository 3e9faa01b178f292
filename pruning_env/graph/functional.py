"""Calling a module with other tensors in the place of its own. Knows nothing of pruning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from pruning_env.graph.copies import named_tensors

__all__ = ["call_with"]


def call_with(model: nn.Module, tensors: Mapping[str, Tensor], *inputs: Any) -> Any:
    """What `model(*inputs)` returns with these tensors; the model has its own again afterwards.

    As `torch.func.functional_call`, but for a module that the model has under two names: that
    function puts tensors into it twice, and takes them out once. Here each goes once into every
    module that holds it.

    Args:
        model: left as it was, unless it changes itself when it is called.
        tensors: by the first name of a parameter or buffer, as `named_parameters` gives it.
        inputs: of the model.
    """
    given = {id(own): tensors[name] for name, own in named_tensors(model) if name in tensors}
    places = {
        f"{path}.{name}" if path else name: given[id(own)]
        for path, module in model.named_modules()
        for name, own in (*module._parameters.items(), *module._buffers.items())
        if id(own) in given
    }
    return functional_call(model, places, inputs, tie_weights=False)
