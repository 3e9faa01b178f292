"""`cnnprune train`: search with an agent, and leave what it found on disk.

One path for every agent. Those that learn can be followed in TensorBoard, and saved and continued.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from functools import partial
from typing import Any

import gymnasium as gym
from rich.console import Console

from pruning_agents.cli.arguments import BadInput, positive_int, seed
from pruning_agents.cli.delivery import deliver, result_table
from pruning_agents.cli.options import add_environment, add_output, check_output, make_env
from pruning_agents.cli.output import AGENT_FILE, CHECKPOINT_FILE, RESULT_FILE, write_model
from pruning_agents.cli.task_options import task_of
from pruning_agents.search.checkpoints import Identity
from pruning_agents.search.judge import with_networks
from pruning_agents.search.registry import agent_names, get_agent
from pruning_agents.search.result import Search, SearchResult
from pruning_agents.search.rows import ResultRow
from pruning_agents.search.training import Checkpoints, Learner, begin, resume, train

DESCRIPTION = (
    f"Search with an agent. Writes {RESULT_FILE} (a result row), the pruned model and, if the "
    f"agent can be saved, {AGENT_FILE} into the folder OUT."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who searches, how long, the environment, and where the result goes."""
    parser.add_argument("--agent", required=True, choices=agent_names(), help="who searches")
    parser.add_argument(
        "--evaluations",
        type=positive_int,
        default=1000,
        metavar="N",
        help="evaluations on search-val to spend at most (default: %(default)s)",
    )
    parser.add_argument(
        "--as-published",
        action="store_true",
        help="agent and environment as their paper has them, where that is not the default; other "
        "arguments still change them. Of rl-pruner",
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed (default: %(default)s)")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    learners = parser.add_argument_group("agents that learn")
    learners.add_argument("--tensorboard", metavar="DIR", help="log training for TensorBoard")
    learners.add_argument(
        "--checkpoint-every",
        type=positive_int,
        metavar="N",
        help="save training into OUT about every N transitions, and the best model so far",
    )
    learners.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint in OUT, if there is one, to the result that there would "
        "have been without the interruption. Resume only what you trust: it is pickled",
    )
    add_environment(parser)
    add_output(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Search, judge and write; exit code 1 if nothing feasible was found."""
    entry, recipe = get_agent(options.agent), None
    if options.as_published:
        if entry.published is None:
            raise BadInput(
                f"argument --as-published: agent {options.agent!r} has no paper's recipe"
            )
        options.agent, recipe = entry.published.agent, entry.published.settings
        entry = get_agent(options.agent)
    checkpoint = options.out / CHECKPOINT_FILE
    _check_learner_options(options, entry.learner)
    if not (options.resume and checkpoint.exists()):
        if options.resume and (row := _finished(options)) is not None:
            console.print(result_table(row))
            console.print(f"Was finished already: {options.out}", soft_wrap=True)
            return 0
        check_output(options)
        checkpoint.unlink(missing_ok=True)
    # What a kill during the writing of a checkpoint has left.
    for half in options.out.glob(f".{checkpoint.stem}-*{checkpoint.suffix}"):
        half.unlink()
    env, settings = make_env(options, recipe)
    if entry.learner is None:
        start = time.perf_counter()
        search = entry.search(env, options.evaluations, options.seed, not options.no_progress)
        seconds = time.perf_counter() - start
    else:
        search, seconds = _learn(entry.learner, options, env, settings)
    code = deliver(
        options, console, env, settings, search, options.seed, seconds, options.evaluations
    )
    checkpoint.unlink(missing_ok=True)
    return code


def _check_learner_options(options: argparse.Namespace, learner: Learner | None) -> None:
    given = {
        "--tensorboard": options.tensorboard,
        "--checkpoint-every": options.checkpoint_every,
        "--resume": options.resume,
    }
    if learner is None and any(given.values()):
        named = ", ".join(name for name, value in given.items() if value)
        raise BadInput(f"argument {named}: agent {options.agent!r} does not learn")
    if options.tensorboard and importlib.util.find_spec("tensorboard") is None:
        raise BadInput("argument --tensorboard: tensorboard is not installed")


def _finished(options: argparse.Namespace) -> ResultRow | None:
    """The result in OUT, if it is what this command asks for."""
    path = options.out / RESULT_FILE
    if not path.is_file():
        return None
    try:
        row = ResultRow.from_json(path.read_text())
    except ValueError as error:
        raise BadInput(f"argument --out: {path}: {error}") from error
    same = (row.agent, row.seed) == (options.agent, options.seed)
    same &= task_of(options, row.task) == row.task
    same &= options.budget is None or dict(options.budget) == row.budget
    return row if same else None


def _learn(
    learner: Learner, options: argparse.Namespace, env: gym.Env, settings: dict[str, Any]
) -> tuple[Search, float]:
    path = options.out / CHECKPOINT_FILE
    checkpoints = None
    try:
        if options.checkpoint_every is not None or options.resume:
            checkpoints = Checkpoints(
                path,
                options.checkpoint_every,
                Identity(options.agent, options.seed, options.evaluations, options.env, settings),
                partial(_save_incumbent, options, env, settings),
            )
        if checkpoints is not None and options.resume and path.exists():
            start = resume(learner, env, checkpoints, options.tensorboard)
        else:
            start = begin(learner, env, options.seed, options.tensorboard)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    return train(start, options.evaluations, not options.no_progress, checkpoints)


def _save_incumbent(
    options: argparse.Namespace, env: gym.Env, settings: dict[str, Any], result: SearchResult
) -> None:
    real, settings = with_networks(env, settings)
    write_model(options.out, real, settings["task"], result, options.seed)
