"""`cnnprune graph MODEL`: which layers of a network hang together, as a table, or drawn."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from pruning_agents.cli.arguments import BadInput, positive_int
from pruning_agents.cli.task_options import image_shape
from pruning_env.files import atomic_path
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.networks import build_network, image_format
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
        help="a task, a model of torchvision, timm:NAME, or path/to/file.py:function or "
        "module:function, which is imported and called",
    )
    parser.add_argument(
        "--input",
        type=_shape,
        metavar="CxHxW",
        help="shape of an image, or N,C,H,W (default: the task's own, what timm says, 3x224x224)",
    )
    parser.add_argument(
        "--classes",
        type=positive_int,
        metavar="N",
        help="outputs of a model (default: as many as it has by itself)",
    )
    parser.add_argument("--layer", metavar="NAME", help="explain one layer instead")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw it (.png, .svg or .pdf)")


def _shape(text: str) -> tuple[int, ...]:
    if "x" in text:
        return (1, *image_shape(text))
    parts = text.split(",")
    if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 3x224x224")
    return tuple(map(int, parts))


def run(options: argparse.Namespace, console: Console) -> int:
    """Trace and print; exit code 0."""
    argument = "MODEL"
    try:
        model, shape = _network(options.model, options.classes)
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


def _network(name: str, classes: int | None) -> tuple[nn.Module, tuple[int, ...]]:
    """The network with random weights, and the shape of its usual input.

    Raises:
        ValueError: When there is no such network.
    """
    if name in task_names():
        task = get_task(name)
        return task.build(), (1, *task.input_shape)
    return build_network(name, classes), (1, *image_format(name).shape)


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
