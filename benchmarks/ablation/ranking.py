"""Whether it helps to rank channels anew on the pruned network: the same actions, other channels.

Each case is a budget and a recovery. In each, the zero action and some random ones, the same for
all rankings, prune the dense network to the end, and only what they end with is judged.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_agents.search.rollout import finish
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.actions import make_action
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningDynamics

__all__ = ["CASES", "RANKINGS", "Ends", "measure", "to_markdown"]

CASES: tuple[tuple[dict[str, float], str], ...] = tuple(
    ({name: limit}, recovery)
    for recovery, name in itertools.product(("bn", "none"), ("params", "macs"))
    for limit in (0.5, 0.3, 0.15)
)
"""Budget and recovery."""

RANKINGS = (None, 4, 1)
"""Values of `rank_every`."""

RANDOM_ACTIONS = 10


@dataclass(frozen=True)
class Ends:
    """What the actions end with in one case by one ranking.

    Attributes:
        budget: limits.
        recovery: of the environment.
        rank_every: of the environment.
        uniform: search-val accuracy of the zero action's network, in [0, 1].
        random: mean accuracy of those of the random actions.
    """

    budget: dict[str, float]
    recovery: str
    rank_every: int | None
    uniform: float
    random: float


def measure(
    task: str, data_root: str | None = None, val_images: int | None = None
) -> Iterator[Ends]:
    """All cases by all rankings, on a task."""
    for recovery, cases in itertools.groupby(CASES, key=lambda case: case[1]):
        env = CNNPruneEnv(task=task, data_root=data_root, recovery=recovery, val_images=val_images)
        rng = np.random.default_rng(0)
        size = len(env.graph.groups)
        actions = [np.zeros(size), *rng.uniform(-1, 1, (RANDOM_ACTIONS, size))]
        for (budget, _), every in itertools.product(cases, RANKINGS):
            dynamics = PruningDynamics(
                env.graph,
                env.evaluator,
                parse_budget(budget),
                make_action("distribution", env.graph.sizes, 3.0),
                rank_every=every,
            )
            start = dynamics.initial()
            ends = [finish(dynamics, start, action).state.latest.accuracy for action in actions]
            yield Ends(budget, recovery, every, ends[0], float(np.mean(ends[1:])))


def to_markdown(task: str, ends: Sequence[Ends], command: str) -> str:
    """One line per case, and the means below."""
    lines = [
        ["budget", "recovery", *(f"uniform, {_name(every)}" for every in RANKINGS)]
        + [f"random, {_name(every)}" for every in RANKINGS]
    ]
    lines.append(["---", "---", *["---:"] * (2 * len(RANKINGS))])
    table = []
    for budget, recovery in CASES:
        own = [end for end in ends if (end.budget, end.recovery) == (budget, recovery)]
        by_every = {end.rank_every: end for end in own}
        row = [by_every[every].uniform for every in RANKINGS]
        row += [by_every[every].random for every in RANKINGS]
        table.append(row)
        limit = ", ".join(f"{name} ≤ {value:g}" for name, value in budget.items())
        lines.append([limit, recovery, *(f"{100 * value:.1f}" for value in row)])
    lines.append(["**mean**", "", *(f"{100 * value:.1f}" for value in np.mean(table, axis=0))])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"# Ranking channels anew, {task}\n\n{body}\n\nSearch-val accuracy (%) at the end of an "
        f"episode of one action. *random*: mean of {RANDOM_ACTIONS} actions, the same for all "
        f"rankings. Ranked anew every so many steps of 5 % of the channels, by Taylor importance.\n"
        f"\n{_wins(np.array(table))}\n\n```bash\n{command}\n```\n"
    )


def _wins(table: NDArray[np.float64]) -> str:
    count = len(RANKINGS)
    said = []
    for place, every in enumerate(RANKINGS[1:], start=1):
        for what, offset in (("uniform", 0), ("random", count)):
            better = table[:, offset + place] - table[:, offset]
            said.append(
                f"{_name(every)}, {what}: better in {int((better > 0).sum())} of {len(table)} "
                f"cases, worse in {int((better < 0).sum())}, by {100 * better.mean():+.1f} points "
                "in the mean"
            )
    return ". ".join(said) + "."


def _name(every: int | None) -> str:
    return "dense" if every is None else f"every {every}"
