"""`cnnprune evaluate`: judge a saved pruned model."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from pruning_agents.cli.arguments import BadInput, device
from pruning_agents.cli.delivery import add_latency, add_size, comparison, note_interval
from pruning_agents.cli.output import MODEL_NAME
from pruning_agents.cli.runtime_options import add_runtime, protocol, runtime_arguments
from pruning_agents.cli.task_options import add_task, task_of_saved
from pruning_agents.compress.rows import EvaluationRow, line_of
from pruning_agents.search.judge import time_both
from pruning_agents.search.rows import provenance
from pruning_env.evaluation.metrics import measure
from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.latency_budget import LatencySettings
from pruning_env.tasks.storage import load_pruned, read_recipe

DESCRIPTION = "Report accuracy, size and latency of pruned models on disk, beside the dense one."

#: Images per forward pass.
BATCH_SIZE = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The networks, and what they are judged on."""
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="what train, prune or finetune wrote, or its folder; several are of one task",
    )
    parser.add_argument("--test", action="store_true", help="open the test split as well")
    parser.add_argument(
        "--out", type=Path, metavar="FILE.jsonl", help="write a row for each network as well"
    )
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    add_task(parser, None)
    add_runtime(parser, table=False)


def run(options: argparse.Namespace, console: Console) -> int:
    """Judge and print a table for each network; exit code 0."""
    paths = [saved if (saved := path / MODEL_NAME).is_dir() else path for path in options.models]
    try:
        runtime = LatencySettings.of(runtime_arguments(options)).runtime
        recipes = [read_recipe(path) for path in paths]
        task = task_of_saved(options, recipes[0])
        for path, recipe in zip(paths, recipes, strict=True):
            if recipe.architecture != recipes[0].architecture:
                raise BadInput(
                    f"argument MODEL: {path} is of the task {recipe.architecture!r}, and "
                    f"{paths[0]} of {recipes[0].architecture!r}; judge them apart"
                )
        models = [load_pruned(path).to(options.device) for path in paths]
        dense = task.model(options.weights, options.data_root).to(options.device)
        splits = task.load_data(options.data_root)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    graph = ChannelGraph.trace(task.model(options.weights, options.data_root), task.example_input())
    looks = {"search-val": splits.search_val} | ({"test": splits.test} if options.test else {})
    accuracies: dict[str, list[float]] = {}
    for name, split in looks.items():
        images = splits.normalised(split, torch.device(options.device))
        labels = split.labels.to(options.device)
        accuracies[name] = [
            measure(module, images, labels, BATCH_SIZE).accuracy for module in (*models, dense)
        ]
    few = splits.normalised(splits.search_val.evenly_spaced(runtime.batch)).to(options.device)
    try:
        latencies = [time_both(dense, model, few, runtime) for model in models]
    except ValueError as error:
        raise BadInput(str(error)) from error
    made = provenance(options.command_line, options.device)
    full = graph.full()
    rows = []
    for number, (path, recipe, latency) in enumerate(zip(paths, recipes, latencies, strict=True)):
        keep = recipe.keep_mask()
        row = EvaluationRow(
            task=task.name,
            network=str(path),
            weights_sha256=recipe.weights_sha256,
            val_accuracy=accuracies["search-val"][number],
            dense_val_accuracy=accuracies["search-val"][-1],
            val_seen=task.val_seen,
            test_accuracy=accuracies["test"][number] if options.test else None,
            dense_test_accuracy=accuracies["test"][-1] if options.test else None,
            test_images=len(splits.test) if options.test else None,
            params=int(graph.params(keep)),
            dense_params=int(graph.params(full)),
            macs=int(graph.macs(keep)),
            dense_macs=int(graph.macs(full)),
            latency_ms=1e3 * latency.seconds,
            dense_latency_ms=1e3 * latency.dense_seconds,
            latency_runtime=runtime.name,
            latency_batch=runtime.batch,
            latency_threads=runtime.threads or torch.get_num_threads(),
            latency_rounds=latency.rounds,
            latency_interval=(latency.low, latency.high),
            provenance=made,
        )
        console.print(_table(row))
        rows.append(row)
    if options.out is not None:
        atomic_write(options.out, "".join(line_of(row) + "\n" for row in rows))
        console.print(f"Written to {options.out}", soft_wrap=True)
    return 0


def _table(row: EvaluationRow) -> Table:
    table = comparison(f"{row.task}: {row.network}")
    seen = " (seen in training)" if row.val_seen else ""
    table.add_row(
        f"search-val accuracy{seen}", f"{row.val_accuracy:.2%}", f"{row.dense_val_accuracy:.2%}"
    )
    if row.test_accuracy is not None:
        table.add_row("test accuracy", f"{row.test_accuracy:.2%}", f"{row.dense_test_accuracy:.2%}")
    add_size(table, "parameters", row.params, row.dense_params)
    add_size(table, "MACs", row.macs, row.dense_macs)
    where = protocol(row.latency_runtime, row.latency_batch, row.latency_threads)
    add_latency(table, where, row.latency_ms / 1e3, row.dense_latency_ms / 1e3)
    note_interval(table, row.latency_rounds, *row.latency_interval)
    return table
