"""The command line `cnnprune`: train, prune, evaluate, and list what there is.

A thin layer: it reads arguments, calls the library and prints. It is the only module of this
package that writes to the standard output. Bad input ends with exit code 2 and a message that names
the argument; a search that meets no budget ends with 1, a disk that is full with 3.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents.baselines import uniform
from pruning_agents.cli.delivery import add_latency, add_size, comparison, deliver
from pruning_agents.cli.graph import add_graph_command
from pruning_agents.cli.options import (
    BadInput,
    add_environment,
    add_output,
    check_output,
    device,
    make_env,
)
from pruning_agents.cli.output import MODEL_NAME, agent_name
from pruning_agents.cli.plugins import extra_commands, run_extra
from pruning_agents.cli.profile import add_profile_command
from pruning_agents.cli.train import add_train_command
from pruning_agents.rl_pruner.algorithm import RLPruner
from pruning_agents.search.judge import LATENCY_BATCH
from pruning_agents.search.registry import Search, agent_names, get_agent
from pruning_agents.search.result import IncumbentTracker, SearchResult
from pruning_env.evaluation.evaluator import measure
from pruning_env.evaluation.latency import interleaved_latency
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import get_task, task_names
from pruning_env.tasks.storage import load_pruned, read_recipe

#: Images per forward pass of `evaluate`.
BATCH_SIZE = 256


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code.

    0: done; 1: nothing feasible found; 2: bad input; 3: a file could not be written or read.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    extra = extra_commands()
    parser = _parser(extra)
    if arguments and arguments[0] in extra:
        try:
            return run_extra(extra[arguments[0]], arguments)
        except BadInput as error:
            parser.exit(2, f"cnnprune {arguments[0]}: error: {error}\n")
    options = parser.parse_args(arguments)
    options.command_line = shlex.join(["cnnprune", *arguments])
    try:
        return options.run(options, Console())
    except BadInput as error:
        parser.exit(2, f"cnnprune {options.command}: error: {error}\n")
    except OSError as error:
        # Without a file it is no matter of the user's disk, and the traceback is needed.
        if error.filename is None:
            raise
        parser.exit(3, f"cnnprune {options.command}: error: {error}\n")


def _parser(extra: Iterable[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnnprune", description="Search structured prunings of CNNs, and use what was found."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add_train_command(commands)
    prune = commands.add_parser(
        "prune",
        help="prune once, without a search",
        description="Prune until the budget is met: by the same fraction everywhere, or as a saved "
        "agent says. Load only agents you trust: they are pickled.",
    )
    prune.add_argument(
        "--agent",
        default="uniform",
        metavar="uniform|FILE.zip",
        help="'uniform', or an agent that train saved (default: %(default)s)",
    )
    add_environment(prune)
    add_output(prune)
    prune.set_defaults(run=_prune)

    evaluate = commands.add_parser(
        "evaluate",
        help="judge a saved pruned model",
        description="Report accuracy, size and latency of a pruned model on disk.",
    )
    evaluate.add_argument("model", type=Path, help="what train or prune wrote, or its folder")
    evaluate.add_argument("--test", action="store_true", help="open the test split as well")
    evaluate.add_argument("--weights", metavar="FILE", help="dense weights to compare with")
    evaluate.add_argument("--data-root", metavar="DIR", help="folder that holds the data sets")
    evaluate.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    evaluate.set_defaults(run=_evaluate)

    add_graph_command(commands)
    add_profile_command(commands)
    tasks = commands.add_parser("tasks", help="list the registered tasks")
    tasks.set_defaults(run=_tasks)
    agents = commands.add_parser("agents", help="list the registered agents")
    agents.set_defaults(run=_agents)
    for name in extra:  # they parse their arguments themselves
        commands.add_parser(name, help="from another package; see its own --help")
    return parser


def _prune(options: argparse.Namespace, console: Console) -> int:
    check_output(options)
    env, settings = make_env(options)
    start = time.perf_counter()
    if options.agent == "uniform":
        search = Search(uniform(env))
    else:
        search = Search(_follow(_load_agent(options.agent, env), env))
    return deliver(options, console, env, settings, search, 0, time.perf_counter() - start)


def _load_agent(path: str, env: gym.Env) -> BaseAlgorithm:
    if not Path(path).is_file():
        raise BadInput(f"argument --agent: {path!r} is neither 'uniform' nor a file")
    try:
        name = agent_name(Path(path))
        learner = None if name is None else get_agent(name).learner
        # A file that says nothing was written by hand, and by the agent of this project.
        algorithm = RLPruner if learner is None else learner.algorithm
        return algorithm.load(path, env=env, device="cpu")
    except ValueError as error:
        raise BadInput(f"argument --agent: {path}: {error}") from error


def _follow(agent: BaseAlgorithm, env: gym.Env) -> SearchResult | None:
    """One deterministic episode of a trained agent."""
    unwrapped: Any = env.unwrapped
    before = unwrapped.evaluator.evaluations
    observation, info = env.reset()
    terminated = truncated = False
    while not (terminated or truncated):
        action, _ = agent.predict(observation, deterministic=True)
        observation, _, terminated, truncated, info = env.step(action)
    tracker = IncumbentTracker("saved-agent")
    if info["is_success"]:
        tracker.offer(unwrapped.state(), unwrapped.evaluator.evaluations - before)
    return tracker.result(unwrapped.evaluator.evaluations - before)


def _evaluate(options: argparse.Namespace, console: Console) -> int:
    saved = options.model / MODEL_NAME
    path = saved if saved.is_dir() else options.model
    try:
        recipe = read_recipe(path)
        model = load_pruned(path).to(options.device)
        task = get_task(recipe.architecture)
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
    batch = splits.normalised(splits.search_val, torch.device(options.device))[:LATENCY_BATCH]
    seconds, dense_seconds = (float(each) for each in interleaved_latency([model, dense], batch))

    table = comparison(f"{task.name}: {path}")
    for name, (pruned_accuracy, dense_accuracy) in accuracies.items():
        seen = " (seen in training)" if task.val_seen and name == "search-val" else ""
        table.add_row(f"{name} accuracy{seen}", f"{pruned_accuracy:.2%}", f"{dense_accuracy:.2%}")
    add_size(table, "parameters", graph.params(keep), graph.params(full))
    add_size(table, "MACs", graph.macs(keep), graph.macs(full))
    add_latency(table, seconds, dense_seconds, len(batch))
    console.print(table)
    return 0


def _tasks(options: argparse.Namespace, console: Console) -> int:
    table = Table("task", "what it is", "search-val seen by the dense weights")
    for name in task_names():
        task = get_task(name)
        table.add_row(name, task.summary, "yes" if task.val_seen else "no")
    console.print(table)
    return 0


def _agents(options: argparse.Namespace, console: Console) -> int:
    table = Table("agent", "what it does")
    for name in agent_names():
        table.add_row(name, get_agent(name).summary)
    console.print(table)
    return 0
