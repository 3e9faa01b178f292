"""`cnnprune graph MODEL`: which layers of a network hang together, as a table, or drawn."""

from __future__ import annotations

import argparse
import importlib
import inspect
import math
import warnings
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console
from torch import nn

from pruning_agents.cli.arguments import BadInput
from pruning_env.files import atomic_path
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task, task_names

_NARROWEST = 80  # characters of a table
_PICTURE_DPI = 150


DESCRIPTION = (
    "Trace a network and show its groups of channels: the layers that lose outputs, the layers "
    "that lose inputs, and the layers that are frozen, with reasons."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, and how it is shown."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="a task, a model of torchvision, or module:callable (which is imported and called)",
    )
    parser.add_argument(
        "--input",
        type=_shape,
        metavar="N,C,H,W",
        help="shape of an input (default: the task's own, or 1,3,224,224)",
    )
    parser.add_argument("--layer", metavar="NAME", help="explain one layer instead")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it (.png, .svg or .pdf)")


def _shape(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 1,3,224,224")
    return tuple(map(int, parts))


def run(options: argparse.Namespace, console: Console) -> int:
    """Trace and print; exit code 0."""
    argument = "MODEL"
    try:
        model, shape = _network(options.model)
        argument = "MODEL" if options.input is None else "--input"
        graph = ChannelGraph.trace(model.eval(), _example(options.input or shape))
        argument = "--layer"
        text = (
            graph.table(max(_NARROWEST, console.width))
            if options.layer is None
            else graph.explain(options.layer)
        )
        console.print(text, end="", highlight=False, markup=False, soft_wrap=True)
        argument = "--picture"
        if options.picture is not None:
            _save_picture(graph, options.picture)
            console.print(f"Written to {options.picture}", highlight=False, soft_wrap=True)
    except (ValueError, OSError) as error:
        raise BadInput(f"argument {argument}: {error}") from error
    return 0


def _network(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with random weights, and the shape of its usual input.

    Raises:
        ValueError: When there is no such network.
    """
    if name in task_names():
        task = get_task(name)
        return task.build(), (1, *task.input_shape)
    if ":" in name:
        return _imported(name), (1, 3, 224, 224)
    if name not in torchvision.models.list_models():
        raise ValueError(
            f"{name!r} is unknown; give a task ({', '.join(task_names())}), a model of torchvision "
            "(such as resnet18), or module:callable"
        )
    options: dict[str, Any] = {"weights": None}
    builder = torchvision.models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:
        options["weights_backbone"] = None  # or it would be downloaded
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
        return torchvision.models.get_model(name, **options), (1, 3, 224, 224)


def _imported(path: str) -> nn.Module:
    module, _, name = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{path!r} cannot be imported: {error}") from error
    if not callable(build):
        raise ValueError(f"{path!r} is not callable")
    found = build()
    if not isinstance(found, nn.Module):
        raise ValueError(f"{path!r} returned {type(found).__name__}, not a torch.nn.Module")
    return found


def _example(shape: tuple[int, ...]) -> torch.Tensor:
    values = torch.arange(math.prod(shape), dtype=torch.float32)
    return torch.sin(values).reshape(shape)


def _save_picture(graph: ChannelGraph, path: Path) -> None:
    """Write a picture in the format that the suffix names.

    Raises:
        ValueError: When there is no such format.
        OSError: When the file cannot be written.
    """
    from pruning_env.graph.picture import draw_graph  # matplotlib is slow to import

    with atomic_path(path) as temporary:
        draw_graph(graph).savefig(temporary, dpi=_PICTURE_DPI)
