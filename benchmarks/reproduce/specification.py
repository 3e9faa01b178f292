"""What a cell of a table is: one network at one budget by one method, and what follows.

A cell says all that decides its result, so that equal cells are the same question and a finished
one need not be run again.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from benchmarks.reproduce.published import CIFAR10, CONSTRAINED_RL, RL_PRUNER, Published
from benchmarks.smoke import SMOKE_PREFIX
from pruning_env.evaluation.recovery.training import TrainingRecipe

__all__ = ["Cell", "Recovery"]

#: Published networks within so many points of a cell's cut in MACs stand beside it.
_NEAR = 7.0


@dataclass(frozen=True)
class Recovery:
    """Fine-tuning with the dense network as teacher; loss as in RL-Pruner (T 2, share 0.75).

    Attributes:
        epochs: At most; the one that is best on search-val is kept, 0 among them.
        lr: Learning rate after warm-up; falls to 0 along half a cosine.
        batch_size: Images per step.
        warmup_epochs: Epochs in which the rate rises.
        images: Of search-train, evenly spaced; None for all.
        precision: See `TrainingRecipe`.
        label_smoothing: See `TrainingRecipe`.
        ema: See `TrainingRecipe`.
        scratch: Whether the weights that pruning left are thrown away and drawn anew: how much of
            the result is architecture (Liu et al. 2019, "Rethinking the Value of Network
            Pruning").
    """

    epochs: int = 150
    lr: float = 0.05
    batch_size: int = 256
    warmup_epochs: int = 2
    images: int | None = None
    precision: str = "auto"
    label_smoothing: float = 0.0
    ema: float = 0.0
    scratch: bool = False

    def recipe(self, seed: int) -> TrainingRecipe:
        """The same in the terms of the training loop."""
        return TrainingRecipe(
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.lr,
            warmup=self.warmup_epochs / self.epochs,
            precision=self.precision,
            label_smoothing=self.label_smoothing,
            ema=self.ema,
        )


@dataclass(frozen=True)
class Cell:
    """One network at one budget, by one method, with one seed.

    Attributes:
        table: Name of the table.
        task: Registered name.
        label: Of the table's row, such as "60 %".
        budget: Limits as shares of the dense network.
        method: Registered agent.
        seed: Of search and recovery.
        evaluations: That the search may spend.
        settings: Further keyword arguments of the environment.
        recovery: After the search.
    """

    table: str
    task: str
    label: str
    budget: dict[str, float]
    method: str
    seed: int
    evaluations: int
    settings: dict[str, Any] = field(default_factory=dict)
    recovery: Recovery = field(default_factory=Recovery)

    @property
    def key(self) -> str:
        """Text that is equal for equal cells only."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def slug(self) -> str:
        """A file name; other settings of the same row share it."""
        label = self.label.replace(" ", "").replace("%", "").replace(",", "-")
        return f"{self.task}_{label}_{self.who}_seed{self.seed}"

    @property
    def who(self) -> str:
        """The method as tables call it.

        With the groups that it prunes, where these are not all; and in the table of trained
        networks, whose other methods judge without training, with the steps of training after which
        it judges a candidate.
        """
        parts = [self.method]
        if (groups := self.settings.get("groups", "all")) != "all":
            parts.append(groups)
        if self.table == "after-training" and "finetune_steps" in self.settings:
            parts.append(f"{self.settings['finetune_steps']}-steps")
        return "-".join(parts)

    @property
    def published(self) -> tuple[Published, ...]:
        """What it competes with."""
        task = self.task.removeprefix(SMOKE_PREFIX)
        if self.table == "rl-pruner":
            return RL_PRUNER[task][int(self.label.split()[0])]
        if self.table == "constrained-rl":
            return CONSTRAINED_RL[task]
        macs = self.budget.get("macs")
        if macs is None:
            return ()
        cut = 100 * (1 - macs)
        return tuple(
            row
            for row in CIFAR10.get(task, ())
            if row.macs_cut is not None and abs(row.macs_cut - cut) < _NEAR
        )
