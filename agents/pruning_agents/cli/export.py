"""`cnnprune export`: a saved pruned network as a file for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pruning_agents.cli.arguments import BadInput, positive_int
from pruning_agents.cli.output import MODEL_NAME
from pruning_agents.cli.task_options import add_task, task_of_saved
from pruning_env.evaluation.latency import interleaved_latency
from pruning_env.evaluation.metrics import measure
from pruning_env.tasks.data import Splits
from pruning_env.tasks.export import FORMATS, OnnxNetwork, export
from pruning_env.tasks.quantisation import quantise_onnx
from pruning_env.tasks.storage import load_pruned, read_recipe

DESCRIPTION = (
    "Write a saved network as ONNX (.onnx), as a program of torch.export (.pt2), or its weights "
    "alone (.safetensors). The file is run and compared with the network before it takes its place."
)

#: Images per forward pass.
BATCH_SIZE = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, the file, and whether int8 is made as well."""
    suffixes = ", ".join(suffix for suffix, _ in FORMATS.values())
    parser.add_argument("model", type=Path, help="what train or prune wrote, or its folder")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=f"file to write; its suffix says the format: {suffixes}",
    )
    parser.add_argument(
        "--int8",
        action="store_true",
        help="write a second file, NAME.int8.onnx, quantised with images of search-train; its "
        "accuracy is shown beside",
    )
    parser.add_argument(
        "--calibration",
        type=positive_int,
        default=256,
        metavar="N",
        help="images that --int8 looks at (default: %(default)s)",
    )
    parser.add_argument("--test", action="store_true", help="open the test split for accuracies")
    add_task(parser, None)


def run(options: argparse.Namespace, console: Console) -> int:
    """Write, check and show the files; exit code 0."""
    form = next((n for n, (suffix, _) in FORMATS.items() if suffix == options.out.suffix), None)
    if form is None:
        allowed = ", ".join(suffix for suffix, _ in FORMATS.values())
        raise BadInput(f"argument --out: {options.out} must end in one of {allowed}")
    if options.int8 and form != "onnx":
        raise BadInput(f"argument --int8: needs an ONNX file, and --out is {options.out}")
    saved = options.model / MODEL_NAME
    path = saved if saved.is_dir() else options.model
    try:
        recipe = read_recipe(path)
        task = task_of_saved(options, recipe)
        model = load_pruned(path).float()
        splits = task.load_data(options.data_root) if options.int8 or options.test else None
        file = export(model, options.out, recipe.input_shape, format=form)
        networks: dict[str, nn.Module] = {"PyTorch": model}
        if form == "onnx":
            networks["ONNX Runtime"] = OnnxNetwork(options.out)
        if options.int8:
            assert splits is not None
            few = splits.search_train.evenly_spaced(options.calibration)
            int8 = quantise_onnx(
                options.out, options.out.with_suffix(".int8.onnx"), splits.normalised(few)
            )
            networks["ONNX Runtime, int8"] = OnnxNetwork(int8)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    console.print(_table(networks, recipe.input_shape, splits, options.test))
    opset = "" if file.opset is None else f"opset {file.opset}, "
    written = {file.path: f"{opset}outputs differ by {file.difference:.0e} at most"}
    if options.int8:
        written[int8] = f"{opset}int8"
    for path, what in written.items():
        console.print(
            f"Written to {path}: {path.stat().st_size:,} bytes, {what}",
            soft_wrap=True,
            highlight=False,
        )
    return 0


def _table(
    networks: dict[str, nn.Module], shape: tuple[int, ...], splits: Splits | None, test: bool
) -> Table:
    """Accuracies, where there are images, and times of the same network in each runtime."""
    table = Table("", *networks)
    if splits is not None:
        looks = {"search-val": splits.search_val} | ({"test": splits.test} if test else {})
        for name, split in looks.items():
            images = splits.normalised(split)
            accuracies = (
                measure(network, images, split.labels, BATCH_SIZE).accuracy
                for network in networks.values()
            )
            table.add_row(f"{name} accuracy", *(f"{accuracy:.2%}" for accuracy in accuracies))
    seconds = interleaved_latency(list(networks.values()), torch.zeros(1, *shape))
    threads = torch.get_num_threads()
    table.add_row(f"latency, batch 1, {threads} threads", *(f"{1e3 * s:.2f} ms" for s in seconds))
    return table
