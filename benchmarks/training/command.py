"""`python -m benchmarks train`: train a task's dense network; weights, and a row that says how."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import save
from torch import nn

from benchmarks.smoke import smoke_task
from benchmarks.training.recipes import BaseRecipe, recipe_for
from pruning_agents.search.rows import Provenance, provenance
from pruning_env.evaluation.recovery.processes import processes
from pruning_env.evaluation.recovery.training import Checkpoints, judge, train_epochs
from pruning_env.files import atomic_write
from pruning_env.tasks.registry import get_task

__all__ = ["TrainRow", "add_train_command", "weights_path"]

#: Epochs and batch of `--smoke`.
_SMOKE = {"epochs": 2, "batch_size": 8}


@dataclass(frozen=True)
class TrainRow:
    """One dense network and how it was made. Accuracies are in [0, 1].

    Attributes:
        task: Registered name.
        recipe: All settings.
        processes: That trained together.
        images: Of search-train, search-val and test; learned from were the first only.
        val_accuracy: On search-val, by which nothing was chosen.
        test_accuracy: On test, which was read once, at the end.
        test_loss: Mean cross-entropy there.
        target: Test accuracy asked for; None where nothing is.
        parameters: Of the network.
        weights_sha256: Of the file of weights.
        minutes: That training took since it was last resumed.
        resumed: Whether it was.
        provenance: How, where and when.
    """

    task: str
    recipe: dict[str, Any]
    processes: int
    images: tuple[int, int, int]
    val_accuracy: float
    test_accuracy: float
    test_loss: float
    target: float | None
    parameters: int
    weights_sha256: str
    minutes: float
    resumed: bool
    provenance: Provenance


def weights_path(folder: Path, task: str, seed: int = 0) -> Path:
    """Where `train` leaves the weights of a task unless it is told otherwise."""
    return folder / f"{task}-seed{seed}.safetensors"


def add_train_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "train",
        help="train a task's dense network on search-train",
        description="Train a task's dense network on search-train; search-val is watched, test is "
        "read once. Writes the weights and, beside them, a JSON row. Several GPUs: "
        "torchrun --nproc-per-node N -m benchmarks train ...",
    )
    parser.add_argument("--task", required=True, help="a registered task (see `cnnprune tasks`)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: %(default)s)")
    parser.add_argument("--data-root", help="folder that holds the data sets")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    for field, kind in (
        ("epochs", int),
        ("batch_size", int),
        ("learning_rate", float),
        ("weight_decay", float),
        ("warmup", float),
        ("label_smoothing", float),
        ("cutout", int),
        ("ema", float),
        ("precision", str),
    ):
        parser.add_argument(
            f"--{field.replace('_', '-')}", type=kind, help="default: the task's recipe"
        )
    parser.add_argument(
        "--out", type=Path, help="default: runs/train/<task>-seed<seed>.safetensors"
    )
    parser.add_argument(
        "--checkpoint-every", type=int, default=10, metavar="EPOCHS", help="default: %(default)s"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint beside --out, if there is one; leave out what is done",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="two epochs on random images, to try the command"
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    if options["checkpoint_every"] < 1:
        raise ValueError(f"checkpoint_every={options['checkpoint_every']}: must be 1 or more.")
    recipe = _recipe(options)
    name = smoke_task(options["task"]) if options["smoke"] else options["task"]
    out: Path = options["out"] or weights_path(Path("runs/train"), name, recipe.seed)
    if out.suffix != ".safetensors":
        raise ValueError(f"out={str(out)!r}: must end in .safetensors.")
    if options["resume"] and out.exists() and out.with_suffix(".json").exists():
        console.print(f"{out} is there already", soft_wrap=True)
        return 0
    checkpoints = Checkpoints(
        out.with_suffix(".checkpoint"), options["checkpoint_every"], options["resume"]
    )
    task = get_task(name)
    try:
        splits = task.load_data(options["data_root"])
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = task.build()
    with processes(options["device"]) as team:
        device = torch.device(team.device)
        resumed = options["resume"] and checkpoints.path.exists()
        begun = time.perf_counter()
        try:
            trained = train_epochs(
                model, splits, recipe, team=team, checkpoints=checkpoints, progress=True
            )
        except FloatingPointError as error:
            raise ValueError(str(error)) from error
        minutes = (time.perf_counter() - begun) / 60
        if team.rank > 0:
            return 0
        kept = trained.model
        val = judge(kept, splits, splits.search_val, device)
        test = judge(kept, splits, splits.test, device)
        weights = _bytes(kept)
        row = TrainRow(
            task=name,
            recipe=asdict(trained.recipe),
            processes=team.world,
            images=(len(splits.search_train), len(splits.search_val), len(splits.test)),
            val_accuracy=val.accuracy,
            test_accuracy=test.accuracy,
            test_loss=test.loss,
            target=recipe.target,
            parameters=sum(parameter.numel() for parameter in kept.parameters()),
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            minutes=round(minutes, 3),
            resumed=resumed,
            provenance=provenance(command, team.device),
        )
    atomic_write(out, weights)
    atomic_write(out.with_suffix(".json"), json.dumps(asdict(row), indent=2) + "\n")
    checkpoints.path.unlink(missing_ok=True)
    asked = "" if recipe.target is None else f" (asked for: {recipe.target:.2%})"
    console.print(
        f"{name}: search-val {val.accuracy:.2%}, test {test.accuracy:.2%}{asked} -> {out}",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _recipe(options: dict[str, Any]) -> BaseRecipe:
    """The task's recipe with what the command line changes."""
    names = {field.name for field in dataclasses.fields(BaseRecipe)}
    given = {key: value for key, value in options.items() if key in names and value is not None}
    return dataclasses.replace(
        recipe_for(options["task"]), **{**(_SMOKE if options["smoke"] else {}), **given}
    )


def _bytes(model: nn.Module) -> bytes:
    state = model.state_dict()
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
