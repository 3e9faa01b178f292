"""`cnnprune prune`: prune once, without a search."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console
from stable_baselines3.common.base_class import BaseAlgorithm

from pruning_agents.baselines import uniform
from pruning_agents.cli.arguments import BadInput
from pruning_agents.cli.delivery import deliver
from pruning_agents.cli.options import add_environment, add_output, check_output, make_env
from pruning_agents.cli.output import agent_name
from pruning_agents.former_names import former_names
from pruning_agents.rl_pruner.algorithm import RLPruner
from pruning_agents.search.registry import get_agent
from pruning_agents.search.result import IncumbentTracker, Search, SearchResult

DESCRIPTION = (
    "Prune until the budget is met: by the same fraction everywhere, or as a saved agent says. "
    "Load only agents you trust: they are pickled."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Who prunes, the environment, and where the result goes."""
    parser.add_argument(
        "--agent",
        default="uniform",
        metavar="uniform|FILE.zip",
        help="'uniform', or an agent that train saved (default: %(default)s)",
    )
    add_environment(parser)
    add_output(parser)


def run(options: argparse.Namespace, console: Console) -> int:
    """Prune, judge and write; exit code 1 if nothing feasible came out."""
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
        with former_names():
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
