"""Which networks are judged, by which proxies, and how they are trained. Runs nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.reproduce.specification import Recovery

__all__ = ["BUDGETS", "PROXIES", "SMOKE", "STUDIES", "Allocation", "Study", "allocations"]

BUDGETS: tuple[dict[str, float], ...] = ({"macs": 0.5}, {"macs": 0.25})

_STEPS: dict[str, Any] = {
    "recovery": "finetune",
    "finetune_lr": 0.01,
    "finetune_arguments": {"start": "reconstruct"},
}
#: By name, what a reward is computed after: arguments of the environment, or epochs of training.
#: All that train begin where reconstruction ends.
PROXIES: dict[str, dict[str, Any] | Recovery] = {
    "none": {"recovery": "none"},
    "bn": {"recovery": "bn"},
    "reconstruct": {"recovery": "reconstruct"},
    "20 steps": {**_STEPS, "finetune_steps": 20},
    "100 steps": {**_STEPS, "finetune_steps": 100},
    "1 epoch": Recovery(epochs=1, lr=0.05, batch_size=128, warmup_epochs=0),
}

TRAINING = Recovery(epochs=8, lr=0.05, batch_size=128, warmup_epochs=1)


@dataclass(frozen=True)
class Allocation:
    """How a network's channels per group are found.

    Attributes:
        budget: Limits as shares of the dense network.
        kind: "random", "rule" or "searched".
        method: Registered agent.
        evaluations: That it may spend.
        seed: Of the agent.
        recovery: That it judges its candidates after.
        groups: That it prunes.
    """

    budget: dict[str, float]
    kind: str
    method: str
    evaluations: int = 1
    seed: int = 0
    recovery: str = "bn"
    groups: str = "all"

    @property
    def key(self) -> str:
        """Text that is equal for equal ones only."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def slug(self) -> str:
        """A file name."""
        limits = "-".join(f"{name}{limit:g}" for name, limit in self.budget.items())
        parts = (limits, self.method, self.groups, self.recovery, str(self.seed))
        return "_".join(parts)


_RULES = (
    *(("uniform", "all"), ("uniform", "inner"), ("global-taylor", "all")),
    *(("global-taylor", "inner"), ("global-taylor-normalised", "all")),
    *(("global-taylor-per-saving", "all"), ("global-l1", "all"), ("lamp", "all")),
)


def allocations(budgets: Sequence[dict[str, float]] = BUDGETS) -> list[Allocation]:
    """Eight random ones, eight by rules and eight searched ones for each budget.

    In turn, so that a run cut short has some of each kind.
    """
    found = []
    for number, (rule, groups) in enumerate(_RULES):
        agent = ("rl-pruner", "cem")[number % 2]
        recovery, seed = ("bn", "reconstruct")[number // 2 % 2], number // 4
        for budget in budgets:
            found.append(Allocation(budget, "rule", rule, groups=groups))
            found.append(Allocation(budget, "random", "random-search", seed=number))
            found.append(Allocation(budget, "searched", agent, 60, seed, recovery))
    return found


@dataclass(frozen=True)
class Study:
    """What is asked of all networks.

    Attributes:
        task: Registered name.
        allocations: The networks, in the order in which they are judged.
        val_images: That proxies are measured on.
        training: After which a network is what it is worth.
        training_seeds: How often each is trained; what it is worth is the mean.
        proxies: By name; see `PROXIES`.
    """

    task: str = "cifar10-resnet20"
    allocations: tuple[Allocation, ...] = field(default_factory=lambda: tuple(allocations()))
    val_images: int | None = 500
    training: Recovery = TRAINING
    training_seeds: int = 1
    proxies: dict[str, dict[str, Any] | Recovery] = field(default_factory=lambda: dict(PROXIES))


STUDIES: dict[str, Study] = {
    study.task: study
    for study in (
        Study(),
        # Seconds per training, so that the noise of one can be averaged away: an image of test is a
        # quarter of a point there. Budgets and training are those of the table after training.
        Study(
            task="digits-resnet8",
            allocations=tuple(allocations(({"params": 0.1}, {"params": 0.05}))),
            val_images=None,
            training=Recovery(epochs=30, lr=0.05, batch_size=64, warmup_epochs=2),
            training_seeds=5,
            proxies={
                **PROXIES,
                "1 epoch": Recovery(epochs=1, lr=0.05, batch_size=64, warmup_epochs=0),
            },
        ),
    )
}
"""By task."""

#: Every kind of network and proxy on a small task, in seconds.
SMOKE = Study(
    task="digits-resnet8",
    allocations=tuple(
        dataclasses.replace(each, evaluations=min(each.evaluations, 4))
        for each in allocations(({"macs": 0.5},))[:6]
    ),
    val_images=None,
    training=Recovery(epochs=2, lr=0.05, batch_size=64, warmup_epochs=1, images=256),
    training_seeds=2,
    proxies={
        **PROXIES,
        "100 steps": {**_STEPS, "finetune_steps": 4},
        "1 epoch": Recovery(epochs=1, lr=0.05, batch_size=64, warmup_epochs=0, images=128),
    },
)
