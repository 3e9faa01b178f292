"""Which cells a table has: networks, budgets, methods and seeds, and with what settings.

Nothing here runs one. The table of trained networks has its own module, `after_training.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from benchmarks.reproduce.after_training import AFTER_TRAINING, after_training_cells
from benchmarks.reproduce.published import CONSTRAINED_RL, RL_PRUNER
from benchmarks.reproduce.specification import Cell, Recovery
from benchmarks.smoke import smoke_task
from pruning_agents.rl_pruner.published import REWARDS, published_env
from pruning_agents.search.registry import get_agent

__all__ = ["TABLES", "plan", "smoke_cells"]

#: The agent that is the paper's, on its environment; of it the table has all three rewards.
PUBLISHED = "rl-pruner-published"

TABLES = ("constrained-rl", "amc", "rl-pruner", "cpu", AFTER_TRAINING)

#: Search by these, the first of which is the one that the table is about.
_METHODS = {
    "constrained-rl": (
        *("ppo-lagrangian", "rl-pruner", "uniform", "global-taylor", "random-search"),
    ),
    "amc": ("rl-pruner", "ppo", "uniform", "global-taylor", "random-search"),
    "rl-pruner": (PUBLISHED, "rl-pruner", "uniform", "global-taylor", "random-search"),
    "cpu": ("rl-pruner", "uniform"),
}


#: What makes the paper's environment small.
_TINY_PUBLISHED: dict[str, Any] = {
    "filters_per_step": 0.2,
    "importance_images": 4,
    "finetune_arguments": {"epochs": 1, "batch_size": 8},
}


def plan(
    table: str,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    tasks: Sequence[str] = (),
    methods: Sequence[str] = (),
) -> list[Cell]:
    """The cells of a table in the order to run them: the table's own method first, then seeds.

    Args:
        table: One of `TABLES`.
        seeds: Of each cell.
        tasks: Only these; empty for all of the table.
        methods: These instead of the table's; empty for the table's.

    Raises:
        ValueError: An unknown table, a task that it does not have, or an unknown agent.
    """
    if table not in TABLES:
        raise ValueError(f"table={table!r} is not known; known: {', '.join(TABLES)}")
    if table == AFTER_TRAINING:
        return after_training_cells(seeds=len(seeds), tasks=tasks, methods=methods)
    rows = _rows(table)
    known = list(dict.fromkeys(task for task, _, _ in rows))
    strangers = [task for task in tasks if task not in known]
    if strangers:
        raise ValueError(f"tasks={strangers!r}: table {table} has {', '.join(known)}")
    chosen = tuple(methods) or _METHODS[table]
    for method in chosen:
        get_agent(method)
    return [
        _cell(table, task, label, budget, method, seed)
        for method in chosen
        for seed in seeds
        for task, label, budget in rows
        if not tasks or task in tasks
        if method == PUBLISHED or "reward" not in label
    ]


def smoke_cells(table: str) -> list[Cell]:
    """Every kind of cell that the table has, tiny: each method once, each network once.

    The networks are the table's, untrained, and the images random.
    """
    whole = plan(table, seeds=(0,))
    first = whole[0].task
    picked: dict[tuple[str, str, bool], Cell] = {}
    for cell in whole:
        known = {method for _, method, _ in picked}
        if cell.task == first or cell.method == whole[0].method or cell.method not in known:
            picked.setdefault((cell.task, cell.method, cell.recovery.scratch), cell)
    tiny = Recovery(epochs=1, batch_size=8, warmup_epochs=0, images=8)
    return [
        dataclasses.replace(
            cell,
            task=smoke_task(cell.task),
            evaluations=2 if cell.method != "ppo-lagrangian" else 4,
            # What random weights can be pruned to is not the question.
            budget=dict.fromkeys(cell.budget, 0.6),
            settings={
                **cell.settings,
                "val_images": 8,
                **({"finetune_steps": 1} if "finetune_steps" in cell.settings else {}),
                **(_TINY_PUBLISHED if cell.method == PUBLISHED else {}),
            },
            recovery=dataclasses.replace(tiny, scratch=cell.recovery.scratch),
        )
        for cell in picked.values()
    ]


def _rows(table: str) -> list[tuple[str, str, dict[str, float]]]:
    """(task, label, budget) of each row."""
    if table == "rl-pruner":
        return [
            (task, f"{sparsity} %{tail}", {"filters": round(1 - sparsity / 100, 2)})
            for tail in ("", *(f", {name} reward" for name in REWARDS if name != "accuracy"))
            for task in RL_PRUNER
            for sparsity in RL_PRUNER[task]
        ]
    if table == "constrained-rl":
        vgg = [(task, "7 %", {"params": 0.07}) for task in CONSTRAINED_RL if "vgg" in task]
        # VGG-16 and ResNet-18 first: the paper's headline.
        return [vgg[0], ("cifar10-resnet18", "24.9 %", {"params": 0.249}), *vgg[1:]]
    half = {"macs": 0.5}
    if table == "amc":
        return [("cifar10-resnet56", "50 %", half)]
    return [(f"cifar10-resnet{depth}", "50 %", half) for depth in (20, 56)]


def _cell(
    table: str, task: str, label: str, budget: dict[str, float], method: str, seed: int
) -> Cell:
    settings: dict[str, Any] = {"constraint": "project", "max_steps": 1, "reward": "final"}
    if table == "rl-pruner":
        settings["reward"] = "rl_pruner"
    if method == "ppo-lagrangian":
        settings = {"constraint": "cost", "max_steps": 2, "action": "ratio", "reward": "final"}
    evaluations, recovery = 500, Recovery()
    if method == PUBLISHED:
        reward = label.split(", ")[-1].removesuffix(" reward") if "reward" in label else "accuracy"
        weights = REWARDS[reward]
        settings = published_env(
            1 - budget["filters"], alpha=weights["alpha"], beta=weights["beta"]
        )
        del settings["budget"]
        # 100 candidates and a commit for each step of 1 %, and some for steps that fall short.
        evaluations = round(106 * 100 * (1 - budget["filters"]))
    if table == "constrained-rl":
        # With 7 % of the weights left, a network that was not trained says nothing. The paper
        # trains for up to 128 steps before it judges.
        settings |= {"recovery": "finetune", "finetune_steps": 32, "finetune_lr": 0.01}
        evaluations, recovery = 300, Recovery(epochs=300, lr=0.1)
    elif table == "cpu":
        settings["val_images"] = 500
        evaluations = 60
        recovery = Recovery(epochs=2, lr=0.01, batch_size=128, warmup_epochs=0, images=5000)
    return Cell(table, task, label, dict(budget), method, seed, evaluations, settings, recovery)
