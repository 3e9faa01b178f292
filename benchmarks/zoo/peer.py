"""Torch-Pruning's side of a comparison; needs `torch-pruning`, which is imported late."""

from __future__ import annotations

import copy
import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pruning_env.graph.channel_graph import ChannelGraph

#: The share of channels that goes.
RATIO = 0.5


def peer_version() -> str | None:
    """The version of Torch-Pruning, None where it is not installed."""
    try:
        return importlib.metadata.version("torch-pruning")
    except importlib.metadata.PackageNotFoundError:
        return None


def peer_pruner(
    graph: ChannelGraph, model: nn.Module, inputs: tuple[Tensor, ...]
) -> Callable[[], nn.Module]:
    """A function that makes one candidate: deep copy, random importance at 50 %, one step.

    It does what a search loop has to do with it: groups hold module objects, so that the dependency
    graph is built anew for every copy. It is told which layers are outputs (from our graph).
    """
    # Late, because it is no dependency.
    import torch_pruning  # type: ignore[import-not-found, import-untyped, unused-ignore]

    outputs = [name for name, why in graph.frozen.items() if why == "an output of the model"]
    example: Any = inputs if len(inputs) > 1 else inputs[0]

    def prune() -> nn.Module:
        candidate = copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pruner = torch_pruning.pruner.BasePruner(
                candidate,
                example,
                importance=torch_pruning.importance.RandomImportance(),
                pruning_ratio=RATIO,
                ignored_layers=[candidate.get_submodule(name) for name in outputs],
            )
            pruner.step()
        return candidate

    return prune


def parameters_of(model: nn.Module) -> int:
    """Number of parameters, by counting."""
    return sum(parameter.numel() for parameter in model.parameters())


def runs(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """The error that a forward pass in eval mode ends with, or ""."""
    try:
        with torch.no_grad():
            model.eval()(*inputs)
    except Exception as error:  # whatever a library's models die of is its result
        return one_line(error)
    return ""


def one_line(error: BaseException) -> str:
    """Kind and first line of an exception, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"[:160]
