"""The demonstration: what each method finds with the same number of evaluations.

Every method and seed gets an environment and an evaluator of its own, and its evaluations are
counted by that evaluator. Test is opened once per result, after its search. It draws on the public
interface of `agents` and `pruning_env` only, and is small enough to watch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
from rich.console import Console

import pruning_env  # noqa: F401  (registers the environments)
from benchmarks.plots import plot_comparison
from benchmarks.tables import comparison_table, to_markdown, to_rich
from pruning_agents.cli.output import write_result
from pruning_agents.search.judge import Dense, judge, judge_dense
from pruning_agents.search.registry import get_agent
from pruning_agents.search.result import SearchResult
from pruning_agents.search.rows import Provenance, ResultRow, append_row, provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.files import atomic_write

METHODS = ("uniform", "random-search", "rl-pruner")


@dataclass(frozen=True)
class DemoSettings:
    """What to compare on, how long, and where to write.

    Attributes:
        task: registered name.
        evaluations: that each search may spend.
        seed: first seed.
        seeds: number of consecutive seeds.
        out: folder for the pruned models, rows, table and figure.
        data_root: folder that holds the data sets; None for the default.
        device: a torch device.
        budget: limits, as ratios to the dense model.
    """

    task: str = "digits-resnet8"
    evaluations: int = 500
    seed: int = 0
    seeds: int = 3
    out: Path = Path("runs/demo")
    data_root: str | None = None
    device: str = "cpu"
    budget: dict[str, float] = field(default_factory=lambda: {"params": 0.25})

    def environment(self) -> dict[str, Any]:
        """Keyword arguments of the environment."""
        return {
            "task": self.task,
            "budget": self.budget,
            "data_root": self.data_root,
            "device": self.device,
        }


def run_demo(settings: DemoSettings, command: str, console: Console) -> tuple[ResultRow, ...]:
    """Run the comparison, write everything under `settings.out`, print the table; return the rows.

    Rows of an earlier demonstration in the same folder are replaced.
    """
    settings.out.mkdir(parents=True, exist_ok=True)
    rows_path = settings.out / "rows.jsonl"
    rows_path.unlink(missing_ok=True)
    origin = provenance(command, settings.device)
    seeds = range(settings.seed, settings.seed + settings.seeds)
    jobs = [(None, settings.seed)] + [
        (method, seed)
        for method in METHODS
        for seed in (seeds if get_agent(method).seeded else seeds[:1])
    ]
    console.print(
        f"{settings.task}: {settings.evaluations} evaluations per search, "
        f"seeds {', '.join(map(str, seeds))}",
        highlight=False,
    )
    rows: list[ResultRow] = []
    dense: Dense | None = None
    for method, seed in jobs:
        env = _fresh_environment(settings)
        dense = dense or judge_dense(env, settings.environment(), open_test=True)
        row = _run(method, seed, env, dense, settings, origin, console)
        if row is not None:
            append_row(rows_path, row)
            rows.append(row)

    table = comparison_table(rows)
    atomic_write(settings.out / "table.md", to_markdown(table))
    figures = plot_comparison(rows, settings.out / "figure")
    console.print(to_rich(table))
    console.print(table.caption, highlight=False, markup=False)
    console.print(
        f"\nWritten to {settings.out}/: a folder per method and seed with its pruned model, "
        f"rows.jsonl, table.md, {', '.join(path.name for path in figures)}",
        highlight=False,
        soft_wrap=True,
    )
    return tuple(rows)


def _fresh_environment(settings: DemoSettings) -> CNNPruneEnv:
    """No method may profit from what another has evaluated."""
    env = gym.make("CNNPrune-v0", **settings.environment()).unwrapped
    assert isinstance(env, CNNPruneEnv)
    return env


def _run(
    method: str | None,
    seed: int,
    env: CNNPruneEnv,
    dense: Dense,
    settings: DemoSettings,
    origin: Provenance,
    console: Console,
) -> ResultRow | None:
    """Search with one method (None: do not prune) and one seed, and write what it found."""
    start = time.perf_counter()
    result: SearchResult | None = SearchResult("dense", 0, env.dynamics.initial(), ())
    algorithm = None
    if method is not None:
        search = get_agent(method).search(env, settings.evaluations, seed, True)
        result, algorithm = search.result, search.algorithm
    if result is None:
        console.print(f"{method}, seed {seed}: nothing feasible within the evaluations")
        return None
    row = judge(
        env,
        result,
        dense,
        settings=settings.environment(),
        seed=seed,
        wall_seconds=time.perf_counter() - start,
        provenance=origin,
        open_test=True,
    )
    if method is not None:
        folder = settings.out / f"{method}-seed{seed}"
        write_result(folder, env, settings.task, result, row, algorithm)
    return row
