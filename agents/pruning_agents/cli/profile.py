"""`cnnprune profile`: where the time of a step goes.

The parts are timed by wrapping the functions that do them, from outside; the library itself keeps
no clocks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import gymnasium as gym
import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from pruning_agents.cli.arguments import BadInput, positive_int
from pruning_agents.cli.task_options import DEFAULT_TASK, add_task, task_of
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation import strategies
from pruning_env.evaluation.latency import wait_for

__all__ = ["DESCRIPTION", "Part", "add_arguments", "profile", "run"]

DESCRIPTION = "Show where the time of an environment's step goes, part by part."


@dataclass(frozen=True)
class Part:
    """A part of a step.

    Attributes:
        name: What is done.
        seconds: Mean per step; parts inside this one are not counted.
    """

    name: str
    seconds: float


def profile(env: CNNPruneEnv, steps: int, seed: int = 0) -> tuple[Part, ...]:
    """Time `steps` random steps after one for warming up; the last part is all that is left over.

    Candidates that were seen before are judged again: a step from the cache costs next to nothing.
    """
    spent: dict[str, float] = {}
    stack: list[float] = []
    device = env.evaluator.device

    @contextmanager
    def part(name: str) -> Iterator[None]:
        wait_for(device)
        start = time.perf_counter()
        stack.append(0.0)
        try:
            yield
        finally:
            wait_for(device)
            total = time.perf_counter() - start
            inside = stack.pop()
            spent[name] = spent.get(name, 0.0) + total - inside
            if stack:
                stack[-1] += total

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with part(name):
                return function(*given, **named)

        return call

    evaluator, dynamics = env.evaluator, env.dynamics
    sliced = evaluator.execution.sliced
    rng = np.random.default_rng(seed)
    _ = evaluator.plan  # measured at the first use, which is no part of a step
    with (
        patch.object(env.graph, "prune", timed("slice", env.graph.prune)),
        patch.object(sliced, "_recover", timed("recover", sliced._recover)),
        patch.object(strategies, "measure_together", timed("forward", strategies.measure_together)),
        patch.object(dynamics, "apply", timed("choose channels", dynamics.apply)),
        patch.object(dynamics.payment, "reward", timed("reward", dynamics.reward)),
        patch.object(env._observation, "observe", timed("observe", env._observation.observe)),
    ):
        env.reset(seed=seed)
        for turn in range(steps + 1):
            if turn == 1:
                spent.clear()
            if dynamics.terminal(env.state()):
                env.reset()
            evaluator._cache.clear()
            action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
            with part("everything else"):
                env.step(action)
    rest = spent.pop("everything else")
    parts = [Part(name, seconds / steps) for name, seconds in spent.items()]
    parts.sort(key=lambda each: -each.seconds)
    return (*parts, Part("everything else", rest / steps))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The environment, and how long."""
    add_task(parser, DEFAULT_TASK)
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--steps", type=positive_int, default=10, help="default: %(default)s")


def run(options: argparse.Namespace, console: Console) -> int:
    """Time the steps and print the parts; exit code 0."""
    task = task_of(options, DEFAULT_TASK)
    try:
        env = gym.make(
            "CNNPrune-v0",
            task=task,
            weights=options.weights,
            data_root=options.data_root,
            device=options.device,
        ).unwrapped
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    assert isinstance(env, CNNPruneEnv)
    parts = profile(env, options.steps)
    total = sum(part.seconds for part in parts)
    plan = env.evaluator.plan
    table = Table(
        title=f"{task}: {1e3 * total:.1f} ms per step, {plan.strategy}, "
        f"batches of {plan.batch_size}, {torch.get_num_threads()} threads"
    )
    table.add_column("part")
    for column in ("ms", "share"):
        table.add_column(column, justify="right")
    for part in parts:
        table.add_row(part.name, f"{1e3 * part.seconds:.2f}", f"{part.seconds / total:.1%}")
    console.print(table)
    return 0
