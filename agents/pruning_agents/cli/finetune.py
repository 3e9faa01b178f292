"""`cnnprune finetune`: train a saved pruned network with the dense one as its teacher."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from pruning_agents.cli.arguments import BadInput, device, positive_int, seed
from pruning_agents.cli.delivery import add_size, comparison
from pruning_agents.cli.output import MODEL_NAME
from pruning_agents.cli.task_options import add_task, task_of_saved
from pruning_agents.compress.rows import FineTuneRow, line_of
from pruning_agents.search.rows import provenance
from pruning_env.evaluation.metrics import Metrics
from pruning_env.evaluation.precision import TRAINING_PRECISIONS
from pruning_env.evaluation.recovery.processes import processes
from pruning_env.evaluation.recovery.training import (
    Checkpoints,
    Trained,
    TrainingRecipe,
    judge,
    train_epochs,
)
from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Splits
from pruning_env.tasks.storage import Recipe, load_pruned, read_recipe, save_pruned

ROW_FILE = "finetune.json"
CHECKPOINT_FILE = "finetune.checkpoint"

DESCRIPTION = (
    "Train a pruned network on search-train by distillation from the dense one; the epoch that is "
    f"best on search-val is kept. Writes the network and {ROW_FILE} into the folder OUT."
)

#: Fields of `TrainingRecipe` that may be given, and what they hold.
FIELDS: dict[str, Callable[[str], Any]] = {
    "epochs": positive_int,
    "batch_size": positive_int,
    "learning_rate": float,
    "weight_decay": float,
    "warmup": float,
    "label_smoothing": float,
    "cutout": int,
    "ema": float,
    "distillation": float,
    "temperature": float,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The network, how it is trained, and where the result goes."""
    default = TrainingRecipe()
    parser.add_argument("model", type=Path, help="what train or prune wrote, or its folder")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    for name, kind in FIELDS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=kind,
            default=getattr(default, name),
            help="default: %(default)s",
        )
    parser.add_argument(
        "--precision",
        choices=TRAINING_PRECISIONS,
        default=default.precision,
        help="of the forward and backward pass; auto is bfloat16 where the device computes in "
        "it, else float32 (default: %(default)s)",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--test", action="store_true", help="open the test split for the result")
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the last epoch of an interrupted run in OUT, to the result that there "
        "would have been without the interruption",
    )
    parser.add_argument("--force", action="store_true", help="replace an earlier result in OUT")
    parser.add_argument("--tensorboard", metavar="DIR", help="log search-val for TensorBoard")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    add_task(parser, None)


def run(options: argparse.Namespace, console: Console) -> int:
    """Train, judge and write; exit code 0."""
    _check(options)
    try:
        recipe = _recipe(options)
        saved = options.model / MODEL_NAME
        source = saved if saved.is_dir() else options.model
        stored = read_recipe(source)
        task = task_of_saved(options, stored)
        model = load_pruned(source).float()
        dense = task.model(options.weights, options.data_root)
        splits = task.load_data(options.data_root)
        recipe.steps_per_epoch(len(splits.search_train))
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    graph = ChannelGraph.trace(dense, task.example_input())
    dense.to(options.device).to(memory_format=torch.channels_last)
    options.out.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    try:
        trained = _train(options, model, dense, splits, recipe, stored)
    except (ValueError, FloatingPointError) as error:
        raise BadInput(str(error)) from error
    minutes = (time.perf_counter() - begun) / 60
    assert trained.before is not None  # an epoch was chosen

    def accuracy(network: nn.Module, name: str) -> float:
        split = splits.search_val if name == "search-val" else splits.test
        return judge(network, splits, split, torch.device(options.device)).accuracy

    keep = stored.keep_mask()
    row = FineTuneRow(
        task=task.name,
        source=dict(stored.extra),
        source_sha256=stored.weights_sha256,
        recipe=asdict(trained.recipe),
        epoch=trained.epoch,
        before_val=trained.before.accuracy,
        val_accuracy=accuracy(trained.model, "search-val"),
        dense_val_accuracy=accuracy(dense, "search-val"),
        val_seen=task.val_seen,
        test_accuracy=accuracy(trained.model, "test") if options.test else None,
        dense_test_accuracy=accuracy(dense, "test") if options.test else None,
        params=int(graph.params(keep)),
        params_ratio=float(graph.params(keep) / graph.params(graph.full())),
        macs=int(graph.macs(keep)),
        macs_ratio=float(graph.macs(keep) / graph.macs(graph.full())),
        minutes=round(minutes, 3),
        provenance=provenance(options.command_line, options.device),
    )
    (options.out / ROW_FILE).unlink(missing_ok=True)
    save_pruned(
        options.out / MODEL_NAME,
        trained.model.cpu(),
        graph,
        keep,
        architecture=stored.architecture,
        input_shape=stored.input_shape,
        extra={
            **stored.extra,
            "val_accuracy": row.val_accuracy,
            "finetuned": asdict(trained.recipe),
        },
    )
    atomic_write(options.out / ROW_FILE, line_of(row) + "\n")
    (options.out / CHECKPOINT_FILE).unlink(missing_ok=True)
    console.print(_table(row))
    console.print(f"Written to {options.out}", soft_wrap=True)
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what would lose an earlier result, or cannot be followed."""
    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise BadInput(f"argument --out: {out} is a file; a folder is needed")
    if (out / ROW_FILE).exists() and not options.force:
        raise BadInput(
            f"argument --out: {out} already holds a result; choose another folder or "
            "give --force to replace it"
        )
    ours = (out / ROW_FILE).exists() or (out / CHECKPOINT_FILE).exists()
    if (out / MODEL_NAME).exists() and not ours:
        raise BadInput(
            f"argument --out: {out} holds a network that another command wrote; choose another "
            "folder"
        )
    if (out / CHECKPOINT_FILE).exists() and not (options.resume or options.force):
        raise BadInput(
            f"argument --out: {out} holds the checkpoint of a training that was interrupted; give "
            "--resume to continue it, or --force to replace it"
        )
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise BadInput("argument --tensorboard: tensorboard is not installed")


def _recipe(options: argparse.Namespace) -> TrainingRecipe:
    names = {field.name for field in dataclasses.fields(TrainingRecipe)}
    given = {name: value for name, value in vars(options).items() if name in names}
    return TrainingRecipe(**given)


def _train(
    options: argparse.Namespace,
    model: nn.Module,
    dense: nn.Module,
    splits: Splits,
    recipe: TrainingRecipe,
    stored: Recipe,
) -> Trained:
    with processes(options.device) as team, _log(options.tensorboard) as watch:
        device = torch.device(team.device)
        return train_epochs(
            model,
            splits,
            recipe,
            teacher=dense,
            choose=lambda network: judge(network, splits, splits.search_val, device),
            checkpoints=Checkpoints(
                options.out / CHECKPOINT_FILE,
                every=1,
                resume=options.resume,
                source=stored.weights_sha256,
            ),
            team=team,
            watch=watch,
            progress=not options.no_progress,
        )


@contextmanager
def _log(folder: str | None) -> Iterator[Callable[[int, Metrics], None] | None]:
    """Writes what is seen after each epoch for TensorBoard, if it is asked for."""
    if folder is None:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder) as writer:

        def watch(epoch: int, seen: Metrics) -> None:
            writer.add_scalar("search-val/accuracy", seen.accuracy, epoch)
            writer.add_scalar("search-val/loss", seen.loss, epoch)

        yield watch


def _table(row: FineTuneRow) -> Any:
    table = comparison(f"{row.task}: epoch {row.epoch} of {row.recipe['epochs']}")
    seen = " (seen in training)" if row.val_seen else ""
    dense = f"{row.dense_val_accuracy:.2%}"
    table.add_row(f"search-val accuracy{seen} before", f"{row.before_val:.2%}", dense)
    table.add_row(f"search-val accuracy{seen}", f"{row.val_accuracy:.2%}", dense)
    if row.test_accuracy is not None and row.dense_test_accuracy is not None:
        table.add_row("test accuracy", f"{row.test_accuracy:.2%}", f"{row.dense_test_accuracy:.2%}")
    add_size(table, "parameters", row.params, round(row.params / row.params_ratio))
    add_size(table, "MACs", row.macs, round(row.macs / row.macs_ratio))
    return table
