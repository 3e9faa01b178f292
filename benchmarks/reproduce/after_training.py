"""The table that asks what is left of a search's gain once the pruned network is trained.

Task by budget by method by seed: search or rule, reconstruction, fine-tuning by distillation, and
one look at test. Only which cells there are is said here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.reproduce.specification import Cell, Recovery
from pruning_agents.search.registry import get_agent

__all__ = ["AFTER_TRAINING", "REFERENCE", "after_training_cells"]

AFTER_TRAINING = "after-training"

#: What every method is compared with: the best of what needs no search.
REFERENCE = "best-of-rules"

_ALL = (REFERENCE, "rl-pruner", "uniform", "uniform-inner", "global-taylor", "random-search")
_BEST = (REFERENCE, "rl-pruner")

#: A reward that is dearer and nearer to the end: each candidate is trained a little.
_STEPS: dict[str, Any] = {
    "recovery": "finetune",
    "finetune_steps": 20,
    "finetune_lr": 0.01,
    "finetune_arguments": {"start": "reconstruct"},
}
_TRAINED = (f"{REFERENCE}-20-steps", "rl-pruner-20-steps")

#: Methods that are an agent on an environment of other settings.
_VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "uniform-inner": ("uniform", {"groups": "inner"}),
    **{name: (name.removesuffix("-20-steps"), _STEPS) for name in _TRAINED},
}


@dataclass(frozen=True)
class _Block:
    """Cells that differ in method and seed only.

    Attributes:
        task: Registered name.
        budget: Limits as shares of the dense network.
        recovery: After the search.
        methods: In the order in which they run.
        seeds: How many, at most.
        evaluations: Of a search.
        val_images: That a candidate is judged on; None for all.
    """

    task: str
    budget: dict[str, float]
    recovery: Recovery
    methods: tuple[str, ...]
    seeds: int
    evaluations: int = 200
    val_images: int | None = 500

    @property
    def label(self) -> str:
        """Of the table's row."""
        limits = ", ".join(
            f"{'MACs' if name == 'macs' else name} {100 * limit:g} %"
            for name, limit in self.budget.items()
        )
        scratch = ", from scratch" if self.recovery.scratch else ""
        return f"{limits}, {self.recovery.epochs} epochs{scratch}"


def _cifar(epochs: int, scratch: bool = False) -> Recovery:
    rate = 0.1 if scratch else 0.05
    return Recovery(epochs=epochs, lr=rate, batch_size=128, warmup_epochs=1, scratch=scratch)


def _waves() -> list[list[_Block]]:
    """In the order in which they are worth running; of a wave, all blocks seed by seed."""
    half, quarter = {"macs": 0.5}, {"macs": 0.25}
    twenty, fifty_six = "cifar10-resnet20", "cifar10-resnet56"
    small = Recovery(epochs=30, lr=0.05, batch_size=64, warmup_epochs=2)
    waves = [[_Block(twenty, budget, _cifar(15), _ALL, 3) for budget in (half, quarter)]]
    for task in ("digits-resnet8", "mnist-lenet5"):
        limits = ({"params": limit} for limit in (0.1, 0.05))
        methods = (*_ALL, *_TRAINED)
        waves.append([_Block(task, each, small, methods, 10, val_images=None) for each in limits])
    for budget in (quarter, half):
        waves.append([_Block(fifty_six, budget, _cifar(20), _BEST, 2, evaluations=100)])
    longer = [(budget, scratch) for budget in (half, quarter) for scratch in (False, True)]
    waves.append(
        [_Block(twenty, budget, _cifar(30, scratch), _BEST, 3) for budget, scratch in longer]
    )
    constrained = (REFERENCE, "rl-pruner", "ppo-lagrangian")
    large = (("cifar10-vgg16", 0.17, 2), ("cifar10-vgg16", 0.17, 20), ("cifar10-vgg16", 0.07, 20))
    for task, limit, epochs in (*large, ("cifar10-resnet18", 0.249, 20)):
        budget = {"params": limit}
        waves.append([_Block(task, budget, _cifar(epochs), constrained, 1, evaluations=100)])
    return waves


def after_training_cells(
    *, seeds: int = 3, tasks: Sequence[str] = (), methods: Sequence[str] = ()
) -> list[Cell]:
    """The cells of the table in the order to run them.

    Args:
        seeds: At most so many; a row of small networks has up to ten.
        tasks: Only these; empty for all.
        methods: Only these; empty for all.

    Raises:
        ValueError: A task or method that the table does not have.
    """
    waves = _waves()
    blocks = [block for wave in waves for block in wave]
    for name, asked, known in (
        ("tasks", tasks, [block.task for block in blocks]),
        ("methods", methods, [method for block in blocks for method in block.methods]),
    ):
        strangers = [each for each in asked if each not in known]
        if strangers:
            has = ", ".join(dict.fromkeys(known))
            raise ValueError(f"{name}={strangers!r}: table {AFTER_TRAINING} has {has}")
    return [
        _cell(block, method, seed)
        for wave in waves
        for seed in range(seeds)
        for block in wave
        for method in block.methods
        if seed < block.seeds
        if not tasks or block.task in tasks
        if not methods or method in methods
    ]


def _cell(block: _Block, method: str, seed: int) -> Cell:
    agent, changed = _VARIANTS.get(method, (method, {}))
    get_agent(agent)
    settings: dict[str, Any] = {"reward": "final", "recovery": "reconstruct"}
    if agent == "ppo-lagrangian":
        settings |= {"constraint": "cost", "max_steps": 2, "action": "ratio"}
    else:
        settings |= {"constraint": "project", "max_steps": 1}
    if block.val_images is not None:
        settings["val_images"] = block.val_images
    settings |= changed
    return Cell(
        AFTER_TRAINING,
        block.task,
        block.label,
        dict(block.budget),
        agent,
        seed,
        block.evaluations,
        settings,
        block.recovery,
    )
