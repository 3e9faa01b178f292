"""The command line `cnnprune`: train, prune, evaluate, and list what there is.

A thin layer: it reads arguments, calls the library and prints. It is the only module of this
package that writes to the standard output. Bad input ends with exit code 2 and a message that names
the argument; a search that meets no budget ends with 1.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from rich.console import Console
from rich.table import Table
from stable_baselines3.common.base_class import BaseAlgorithm

import pruning_env  # noqa: F401  (registers the environments)
from agents.baselines import uniform
from agents.graph_command import add_graph_command
from agents.judge import LATENCY_BATCH, judge, judge_dense
from agents.output import AGENT_FILE, MODEL_NAME, RESULT_FILE, write_result
from agents.profile_command import add_profile_command
from agents.registry import Search, agent_names, get_agent
from agents.result import IncumbentTracker, SearchResult
from agents.rl_pruner import RLPruner
from agents.rows import ResultRow, provenance
from pruning_env.channels import ChannelGraph
from pruning_env.env import CNNPruneEnv
from pruning_env.evaluator import measure
from pruning_env.latency import interleaved_latency
from pruning_env.storage import load_pruned, read_recipe
from pruning_env.tasks import get_task, task_names

#: Images per forward pass of `evaluate`.
BATCH_SIZE = 256


class _BadInput(Exception):
    """What the user asked for cannot be done; the message says why and what is allowed."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code (0 done, 1 nothing feasible found, 2 bad input)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    options = parser.parse_args(arguments)
    options.command_line = shlex.join(["cnnprune", *arguments])
    try:
        return options.run(options, Console())
    except _BadInput as error:
        parser.exit(2, f"cnnprune {options.command}: error: {error}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cnnprune", description="Search structured prunings of CNNs, and use what was found."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser(
        "train",
        help="search with an agent and write what it found",
        description=f"Search with an agent. Writes {RESULT_FILE} (a result row), the pruned model "
        f"and, if the agent can be saved, {AGENT_FILE} into the folder OUT.",
    )
    train.add_argument("--agent", required=True, choices=agent_names(), help="who searches")
    train.add_argument(
        "--evaluations",
        type=_positive_int,
        default=1000,
        metavar="N",
        help="evaluations on search-val to spend at most (default: %(default)s)",
    )
    train.add_argument("--seed", type=_seed, default=0, help="seed (default: %(default)s)")
    train.add_argument("--no-progress", action="store_true", help="show no progress bar")
    _add_environment(train)
    _add_output(train)
    train.set_defaults(run=_train)

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
    _add_environment(prune)
    _add_output(prune)
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
    evaluate.add_argument("--device", type=_device, default="cpu", help="default: %(default)s")
    evaluate.set_defaults(run=_evaluate)

    add_graph_command(commands)
    add_profile_command(commands)
    tasks = commands.add_parser("tasks", help="list the registered tasks")
    tasks.set_defaults(run=_tasks)
    agents = commands.add_parser("agents", help="list the registered agents")
    agents.set_defaults(run=_agents)
    return parser


def _add_environment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        default="digits-resnet8",
        choices=task_names(),
        help="network and data (default: %(default)s)",
    )
    parser.add_argument(
        "--budget",
        type=_limit,
        action="append",
        metavar="KEY=LIMIT",
        help="what may remain, as a ratio to the dense model; may be repeated "
        "(default: params=0.25)",
    )
    parser.add_argument("--weights", metavar="FILE", help="dense weights (default: the task's own)")
    parser.add_argument("--data-root", metavar="DIR", help="folder that holds the data sets")
    parser.add_argument("--device", type=_device, default="cpu", help="default: %(default)s")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--test", action="store_true", help="open the test split for the result")
    parser.add_argument("--force", action="store_true", help="replace an earlier result in OUT")


def _positive_int(text: str) -> int:
    value = int(text) if text.lstrip("+-").isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value


def _seed(text: str) -> int:
    if not text.isdigit() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return int(text)


def _limit(text: str) -> tuple[str, float]:
    key, separator, limit = text.partition("=")
    try:
        if separator and key:
            return key, float(limit)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not KEY=LIMIT, such as params=0.25")


def _device(text: str) -> str:
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise argparse.ArgumentTypeError(f"{text!r} cannot be used: {reason}") from error
    return text


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of the environment; what was not given is left to its defaults."""
    settings: dict[str, Any] = {"task": options.task, "device": options.device}
    if options.budget is not None:
        settings["budget"] = dict(options.budget)
    for name in ("weights", "data_root"):
        if getattr(options, name) is not None:
            settings[name] = getattr(options, name)
    return settings


def _make_env(settings: dict[str, Any]) -> gym.Env:
    try:
        return gym.make("CNNPrune-v0", **settings)
    except (ValueError, OSError) as error:
        raise _BadInput(str(error)) from error


def _check_output(options: argparse.Namespace) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise _BadInput(f"argument --out: {options.out} is a file; a folder is needed")
    if (options.out / RESULT_FILE).exists() and not options.force:
        raise _BadInput(
            f"argument --out: {options.out} already holds a result; choose another folder or "
            "give --force to replace it"
        )


def _train(options: argparse.Namespace, console: Console) -> int:
    _check_output(options)
    settings = _settings(options)
    env = _make_env(settings)
    start = time.perf_counter()
    search = get_agent(options.agent).search(
        env, options.evaluations, options.seed, not options.no_progress
    )
    seconds = time.perf_counter() - start
    return _deliver(options, console, env, settings, search, options.seed, seconds)


def _prune(options: argparse.Namespace, console: Console) -> int:
    _check_output(options)
    settings = _settings(options)
    env = _make_env(settings)
    start = time.perf_counter()
    if options.agent == "uniform":
        search = Search(uniform(env))
    else:
        search = Search(_follow(_load_agent(options.agent, env), env))
    return _deliver(options, console, env, settings, search, 0, time.perf_counter() - start)


def _load_agent(path: str, env: gym.Env) -> BaseAlgorithm:
    if not Path(path).is_file():
        raise _BadInput(f"argument --agent: {path!r} is neither 'uniform' nor a file")
    try:
        return RLPruner.load(path, env=env)
    except ValueError as error:
        raise _BadInput(f"argument --agent: {path}: {error}") from error


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


def _deliver(
    options: argparse.Namespace,
    console: Console,
    env: gym.Env,
    settings: dict[str, Any],
    search: Search,
    seed: int,
    seconds: float,
) -> int:
    """Judge, write and show a result."""
    result, unwrapped = search.result, env.unwrapped
    assert isinstance(unwrapped, CNNPruneEnv)
    if result is None:
        console.print("Nothing feasible was found: give more --evaluations or a looser --budget.")
        return 1
    dense = judge_dense(unwrapped, settings, open_test=options.test)
    row = judge(
        unwrapped,
        result,
        dense,
        settings=settings,
        seed=seed,
        wall_seconds=seconds,
        provenance=provenance(options.command_line, options.device),
        open_test=options.test,
    )
    write_result(options.out, unwrapped, settings["task"], result, row, search.algorithm)
    console.print(_result_table(row))
    console.print(f"Written to {options.out}", soft_wrap=True)
    return 0


def _result_table(row: ResultRow) -> Table:
    table = _table(f"{row.task}: {row.agent}, {row.evaluations} evaluations")
    seen = " (seen in training)" if row.val_seen else ""
    table.add_row(
        f"search-val accuracy{seen}", f"{row.val_accuracy:.2%}", f"{row.dense_val_accuracy:.2%}"
    )
    if row.test_accuracy is not None:
        table.add_row("test accuracy", f"{row.test_accuracy:.2%}", f"{row.dense_test_accuracy:.2%}")
    _add_size(table, "parameters", row.params, round(row.params / row.params_ratio))
    _add_size(table, "MACs", row.macs, round(row.macs / row.macs_ratio))
    _add_latency(table, row.latency_ms / 1e3, row.dense_latency_ms / 1e3, row.latency_batch)
    return table


def _table(title: str) -> Table:
    table = Table(title=title)
    table.add_column("")
    for column in ("pruned", "dense", "ratio"):
        table.add_column(column, justify="right")
    return table


def _add_size(table: Table, name: str, pruned: Any, dense: Any) -> None:
    table.add_row(name, f"{int(pruned):,}", f"{int(dense):,}", f"{pruned / dense:.3f}")


def _add_latency(table: Table, seconds: float, dense_seconds: float, batch: int) -> None:
    table.add_row(
        f"latency, batch {batch}",
        f"{1e3 * seconds:.2f} ms",
        f"{1e3 * dense_seconds:.2f} ms",
        f"{seconds / dense_seconds:.3f}",
    )


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
        raise _BadInput(str(error)) from error
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

    table = _table(f"{task.name}: {path}")
    for name, (pruned_accuracy, dense_accuracy) in accuracies.items():
        seen = " (seen in training)" if task.val_seen and name == "search-val" else ""
        table.add_row(f"{name} accuracy{seen}", f"{pruned_accuracy:.2%}", f"{dense_accuracy:.2%}")
    _add_size(table, "parameters", graph.params(keep), graph.params(full))
    _add_size(table, "MACs", graph.macs(keep), graph.macs(full))
    _add_latency(table, seconds, dense_seconds, len(batch))
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
