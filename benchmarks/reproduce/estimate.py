"""How long cells will take, from arithmetic and assumed rates; nothing here is measured.

Counts the multiply-accumulates of search and recovery and the kernels that they launch. Good to a
factor of two or so: for deciding what to start, not for a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.reproduce.specification import Cell
from benchmarks.training.recipes import BaseRecipe
from pruning_env.tasks.registry import get_task

__all__ = ["RATES", "Rates", "cell_minutes", "train_minutes"]

_TRAIN_IMAGES = 45_000
_VAL_IMAGES = 5_000
_BACKWARD = 3  # forward and backward, in forward passes


@dataclass(frozen=True)
class Rates:
    """What a device is assumed to do.

    Attributes:
        forward: Multiply-accumulates per second of judging, float32.
        training: The same of training, in the precision that training uses there.
        module: Seconds per layer and step that a step of training takes at least, whatever its
            size: some eight kernels of 10 microseconds.
    """

    forward: float
    training: float
    module: float


#: Assumed, not measured. "cuda" is an H200: a quarter of its 33e12 float32 and a twentieth of its
#: 495e12 bfloat16 multiply-accumulates, as small images give it. "cpu" is one core.
RATES = {"cuda": Rates(8e12, 2.5e13, 8e-5), "cpu": Rates(2e10, 1.5e10, 0.0)}


def cell_minutes(cells: Sequence[Cell], device: str) -> float:
    """Minutes of search and recovery of cells, without loading and tracing (seconds each)."""
    return sum(map(_cell_seconds, cells, [_rates(device)] * len(cells))) / 60


def train_minutes(task: str, recipe: BaseRecipe, device: str) -> float:
    """Minutes of base training."""
    macs, modules = _size(task)
    rates = _rates(device)
    steps = recipe.epochs * (_TRAIN_IMAGES // recipe.batch_size)
    each = _BACKWARD * macs * recipe.batch_size / rates.training
    return steps * max(each, modules * rates.module) / 60


def _cell_seconds(cell: Cell, rates: Rates) -> float:
    macs, modules = _size(cell.task)
    # Where MACs are not limited, as if nothing were removed.
    share = cell.budget.get("macs", 1.0)
    one_shot = cell.method in ("uniform", "global-l1", "global-taylor")
    evaluations = 1 if one_shot else cell.evaluations
    search = evaluations * cell.settings.get("val_images", _VAL_IMAGES) * macs / rates.forward
    if cell.settings.get("recover_when") == "commit":
        arguments = cell.settings["finetune_arguments"]
        batch = arguments["batch_size"]
        commits = (1 - cell.budget["filters"]) / cell.settings["filters_per_step"]
        trained = round(commits * arguments["epochs"] * (_TRAIN_IMAGES // batch))
        search += _steps(trained, batch, macs, modules, 1, rates)
    elif cell.settings.get("recovery") == "finetune":
        search += evaluations * _steps(
            cell.settings["finetune_steps"], 128, macs, modules, 1, rates
        )
    recovery = cell.recovery
    images = recovery.images or _TRAIN_IMAGES
    steps = recovery.epochs * max(1, images // recovery.batch_size)
    judged = recovery.epochs * cell.settings.get("val_images", _VAL_IMAGES) * macs * share
    return (
        search
        + _steps(steps, recovery.batch_size, macs, modules, share, rates)
        + judged / rates.forward
    )


def _steps(steps: int, batch: int, macs: int, modules: int, share: float, rates: Rates) -> float:
    """Seconds of steps in which the dense network teaches a pruned one."""
    work = batch * macs * (1 + _BACKWARD * share) / rates.training
    return steps * max(work, modules * rates.module)


def _rates(device: str) -> Rates:
    return RATES["cpu" if device == "cpu" else "cuda"]


@lru_cache
def _size(task: str) -> tuple[int, int]:
    """Multiply-accumulates per image, and layers, of a task's dense network."""
    described = get_task(task)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = described.build().eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, *described.input_shape))
    layers = (nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.BatchNorm1d)
    return counter.get_total_flops() // 2, sum(isinstance(m, layers) for m in model.modules())
