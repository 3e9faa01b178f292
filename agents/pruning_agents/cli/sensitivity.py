"""`cnnprune sensitivity`: what pruning each group of channels alone costs, as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path

import gymnasium as gym
import matplotlib
from rich.console import Console
from rich.table import Table

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents.cli.arguments import BadInput, device, positive_int
from pruning_agents.cli.task_options import DEFAULT_TASK, add_task, task_of
from pruning_agents.compress.sensitivity import (
    Sensitivity,
    draw_sensitivity,
    measure_sensitivity,
)
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.files import atomic_path, atomic_write

PICTURE_FILE = "sensitivity.svg"
SENSITIVITY_FILE = "sensitivity.json"

#: Images of search-train that are looked at by default.
PROBE_IMAGES = 256

DESCRIPTION = (
    "Take a quarter, half, three quarters and all that may go from each group of channels alone, "
    "and say how much accuracy on images of search-train that costs. Writes a picture, "
    f"{PICTURE_FILE}, and the numbers, {SENSITIVITY_FILE}, into the folder OUT."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is looked at, on how many images, and where the picture goes."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--probe-images",
        type=positive_int,
        default=PROBE_IMAGES,
        metavar="N",
        help="images of search-train to look at (default: %(default)s)",
    )
    parser.add_argument(
        "--recovery",
        choices=("none", "bn", "reconstruct"),
        default="none",
        help="what follows a cut (default: %(default)s)",
    )
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    add_task(parser, DEFAULT_TASK)


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, write and show; exit code 0."""
    if options.out.exists() and not options.out.is_dir():
        raise BadInput(f"argument --out: {options.out} is a file; a folder is needed")
    task = task_of(options, DEFAULT_TASK)
    try:
        env = gym.make(
            "CNNPrune-v0",
            task=task,
            weights=options.weights,
            data_root=options.data_root,
            device=options.device,
            recovery=options.recovery,
            importance_images=options.probe_images,
        ).unwrapped
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    assert isinstance(env, CNNPruneEnv)
    found = measure_sensitivity(env.dynamics, task, progress_bar=not options.no_progress)
    # Ids in an SVG are hashes with this salt, and random without.
    with (
        matplotlib.rc_context({"svg.hashsalt": task}),
        atomic_path(options.out / PICTURE_FILE) as path,
    ):
        draw_sensitivity(found).savefig(path, metadata={"Date": None})
    atomic_write(options.out / SENSITIVITY_FILE, found.to_json() + "\n")
    console.print(_table(found))
    console.print(f"Written to {options.out}", soft_wrap=True)
    return 0


def _table(found: Sensitivity) -> Table:
    table = Table(
        title=f"{found.task}: points of {found.accuracy:.1%} accuracy lost, {found.images} images "
        "of search-train"
    )
    table.add_column("group")
    for share in found.shares:
        table.add_column(f"{share:.0%} gone", justify="right")
    for name, drops in zip(found.groups, found.drops, strict=True):
        table.add_row(name, *(f"{100 * drop:.1f}" for drop in drops))
    return table
