"""The optimum and the Pareto front of the table, and the regret of a result.

All of it on search-val, the split that agents search on. Knows nothing of Gymnasium.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pruning_env.arguments import check_choice
from pruning_env.process.actions import DistributionAction
from pruning_env.process.budgets import Budget, parse_budget
from pruning_env.process.state import PruningState
from pruning_env.tabular.table_dynamics import TabularProcess

__all__ = ["Record", "Regret", "Solution"]

RANDOM_EPISODES = 4096
"""Of the random policy; their accuracies spread by about 0.2, so the mean is known to 0.003."""

RANDOM_SEED = 0

LOGIT_SCALE = 3.0
"""Of the random policy where the environment's own actions are not distributions: the default."""


@dataclass(frozen=True)
class Record:
    """One configuration of the table.

    Attributes:
        counts: channels of each group.
        accuracy: search-val top-1 accuracy, in [0, 1].
        loss: search-val cross-entropy, mean per image.
        params: parameters / dense.
        macs: MACs / dense.
    """

    counts: tuple[int, ...]
    accuracy: float
    loss: float
    params: float
    macs: float


@dataclass(frozen=True)
class Regret:
    """How far a result is from the optimum.

    Attributes:
        raw: the optimum's search-val accuracy minus the result's; at least 0.
        normalised: the same in units of the random policy's mean raw regret: 0 is the optimum, 1 is
            what random actions give.
        optimum: the optimum's accuracy.
        random: the mean accuracy of the random policy's final states.
    """

    raw: float
    normalised: float
    optimum: float
    random: float


class Solution:
    """Answers about all configurations of one process.

    Args:
        process: whose table, recovery, budgets and steps count.
    """

    def __init__(self, process: TabularProcess) -> None:
        self._process = process
        self._evaluator = process.evaluator
        self._best: dict[tuple[Budget, ...], Record] = {}
        self._random: dict[tuple[Budget, ...], float] = {}
        # One random policy for all kinds of actions: the anchor of regrets is to be the same.
        own = process.dynamics.action
        sizes = process.dynamics.graph.sizes
        self._random_kind = (
            own if isinstance(own, DistributionAction) else DistributionAction(sizes, LOGIT_SCALE)
        )

    def optimum(self, budget: Mapping[str, float] | None = None) -> Record:
        """The most accurate configuration on search-val that meets `budget`.

        It is the best of *all* configurations in the table, a bound that no policy can beat. An
        episode stops at the first state that meets the budget and removes several channels at a
        time, so the optimum may be out of a policy's reach: regret is measured from above, alike
        for all agents. Ties go to the smaller loss, then to fewer parameters.

        Args:
            budget: limits in (0, 1] for "params", "macs", "filters"; None: the environment's.

        Raises:
            ValueError: a bad budget, or no configuration meets it.
        """
        budgets = self._budgets(budget)
        if budgets not in self._best:
            self._best[budgets] = self._search(budgets)
        return self._best[budgets]

    def pareto_front(self, objective: str = "params") -> tuple[Record, ...]:
        """The configurations that no other one beats, in falling order of size.

        None of the table is at least as accurate on search-val and smaller, or as small and more
        accurate. Of equals the one with the smallest loss stands for all.

        Args:
            objective: "params" or "macs".
        """
        check_choice("objective", objective, ("params", "macs"))
        size = getattr(self._process, objective)
        accuracy, loss = self._evaluator.accuracy, self._evaluator.loss
        order = np.lexsort((loss, -accuracy, size))  # smallest first, of those the most accurate
        best_so_far = np.maximum.accumulate(accuracy[order])
        better = np.diff(best_so_far, prepend=-1.0) > 0
        return tuple(self._record(int(place)) for place in order[better][::-1])

    def regret(
        self,
        result: PruningState | Sequence[int] | np.ndarray,
        budget: Mapping[str, float] | None = None,
    ) -> Regret:
        """How far a result is from the optimum.

        Args:
            result: a state, or (L,) channels of each group.
            budget: as in `optimum`.

        Raises:
            ValueError: `result` is not in the table, or does not meet the budget: accuracy that is
                bought with size has no regret.
        """
        counts = result.counts if isinstance(result, PruningState) else np.asarray(result)
        table = self._evaluator.table
        if counts.shape != table.sizes.shape:
            raise ValueError(
                f"result={result!r} is not allowed; give a state, or {table.sizes.size} counts"
            )
        place = int(table.index(counts))
        budgets = self._budgets(budget)
        if not self._feasible(budgets)[place]:
            limits = {each.name: each.limit for each in budgets}
            raise ValueError(f"result={counts.tolist()} does not meet the budget {limits}")
        best = self.optimum(budget).accuracy
        random = self.random_accuracy(budget)
        raw = best - self._evaluator.accuracy.item(place)
        # Where random actions always find the optimum, whatever falls short is infinitely worse.
        scale = best - random
        normalised = raw / scale if scale > 0 else (0.0 if raw == 0 else np.inf)
        return Regret(raw, normalised, best, random)

    def random_accuracy(self, budget: Mapping[str, float] | None = None) -> float:
        """Mean search-val accuracy at the end of the random policy's episodes.

        The random policy draws every action of every step uniformly from the action box, by
        `action="distribution"` whatever the environment's own kind of actions is. The mean
        is over 4,096 episodes of this environment (its step size, logit scale and budget), always
        of the same seed; nothing of it is counted as an evaluation. It is computed at the first
        call, in a fraction of a second.

        Args:
            budget: as in `optimum`.
        """
        budgets = self._budgets(budget)
        if budgets not in self._random:
            ends = self._random_ends(self._feasible(budgets) | self._process.exhausted)
            self._random[budgets] = float(self._evaluator.accuracy[ends].mean())
        return self._random[budgets]

    def _search(self, budgets: tuple[Budget, ...]) -> Record:
        feasible = np.flatnonzero(self._feasible(budgets))
        if not feasible.size:
            limits = {each.name: each.limit for each in budgets}
            raise ValueError(f"budget={limits}: no configuration in the table is so small")
        accuracy, loss = self._evaluator.accuracy[feasible], self._evaluator.loss[feasible]
        params = self._process.params[feasible]
        return self._record(int(feasible[np.lexsort((params, loss, -accuracy))[0]]))

    def _random_ends(self, over: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng(RANDOM_SEED)
        groups = self._evaluator.table.sizes.size
        places = np.full(RANDOM_EPISODES, over.size - 1)
        running = np.arange(RANDOM_EPISODES)
        while running.size:
            actions = rng.uniform(-1.0, 1.0, (RANDOM_EPISODES, groups))
            places[running] = self._process.successor(
                places[running], actions[running], kind=self._random_kind
            )
            running = running[~over[places[running]]]
        return places

    def _budgets(self, budget: Mapping[str, float] | None) -> tuple[Budget, ...]:
        if budget is None:
            return self._process.dynamics.budgets
        for name in budget:
            check_choice("budget key", name, ("params", "macs", "filters"))
        return parse_budget(budget)

    def _feasible(self, budgets: tuple[Budget, ...]) -> np.ndarray:
        feasible = np.ones(self._evaluator.table.size, dtype=np.bool_)
        for budget in budgets:
            feasible &= getattr(self._process, budget.name) <= budget.limit
        return feasible

    def _record(self, place: int) -> Record:
        return Record(
            tuple(self._process.counts[place].tolist()),
            self._evaluator.accuracy.item(place),
            self._evaluator.loss.item(place),
            self._process.params.item(place),
            self._process.macs.item(place),
        )
