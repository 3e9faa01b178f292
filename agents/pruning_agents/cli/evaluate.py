"""`cnnprune evaluate`: judge a saved pruned model."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from rich.console import Console

from pruning_agents.cli.arguments import BadInput, device
from pruning_agents.cli.delivery import add_latency, add_size, comparison, note_interval
from pruning_agents.cli.output import MODEL_NAME
from pruning_agents.cli.runtime_options import add_runtime, protocol, runtime_arguments
from pruning_agents.cli.task_options import add_task, task_of_saved
from pruning_agents.search.judge import time_both
from pruning_env.evaluation.metrics import measure
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.latency_budget import LatencySettings
from pruning_env.tasks.storage import load_pruned, read_recipe

DESCRIPTION = "Report accuracy, size and latency of a pruned model on disk."

#: Images per forward pass.
BATCH_SIZE = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and what it is judged on."""
    parser.add_argument("model", type=Path, help="what train or prune wrote, or its folder")
    parser.add_argument("--test", action="store_true", help="open the test split as well")
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    add_task(parser, None)
    add_runtime(parser, table=False)


def run(options: argparse.Namespace, console: Console) -> int:
    """Judge and print the table; exit code 0."""
    saved = options.model / MODEL_NAME
    path = saved if saved.is_dir() else options.model
    try:
        runtime = LatencySettings.of(runtime_arguments(options)).runtime
        recipe = read_recipe(path)
        task = task_of_saved(options, recipe)
        model = load_pruned(path).to(options.device)
        dense = task.model(options.weights, options.data_root).to(options.device)
        splits = task.load_data(options.data_root)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    graph = ChannelGraph.trace(task.model(options.weights, options.data_root), task.example_input())
    full, keep = graph.full(), recipe.keep_mask()

    accuracies = {}
    looks = {"search-val": splits.search_val} | ({"test": splits.test} if options.test else {})
    for name, split in looks.items():
        images = splits.normalised(split, torch.device(options.device))
        labels = split.labels.to(options.device)
        accuracies[name] = tuple(
            measure(module, images, labels, BATCH_SIZE).accuracy for module in (model, dense)
        )
    few = splits.normalised(splits.search_val.evenly_spaced(runtime.batch))
    try:
        latency = time_both(dense, model, few.to(options.device), runtime)
    except ValueError as error:
        raise BadInput(str(error)) from error

    table = comparison(f"{task.name}: {path}")
    for name, (pruned_accuracy, dense_accuracy) in accuracies.items():
        seen = " (seen in training)" if task.val_seen and name == "search-val" else ""
        table.add_row(f"{name} accuracy{seen}", f"{pruned_accuracy:.2%}", f"{dense_accuracy:.2%}")
    add_size(table, "parameters", graph.params(keep), graph.params(full))
    add_size(table, "MACs", graph.macs(keep), graph.macs(full))
    threads = runtime.threads or torch.get_num_threads()
    where = protocol(runtime.name, runtime.batch, threads)
    add_latency(table, where, latency.seconds, latency.dense_seconds)
    note_interval(table, latency.rounds, latency.low, latency.high)
    console.print(table)
    return 0
