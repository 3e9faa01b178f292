"""What the steps of N episodes on the table earn.

Knows nothing of Gymnasium.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from pruning_env.evaluation.evaluator import Metrics
from pruning_env.process.rewards import UNMET, Outcome, unmet_budgets
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.slot_places import repeated, row
from pruning_env.tabular.table_dynamics import Place

__all__ = ["SlotRewards"]


class SlotRewards:
    """Rewards and their terms of N slots.

    In arrays where the reward function is arithmetic, else one by one as the dynamics does it.
    """

    def __init__(self, single: CNNPruneTabularEnv) -> None:
        self._dynamics = single.dynamics
        self._dense = (single.table.params.item(-1), single.table.macs.item(-1))
        self._names = tuple(single.dynamics.no_reward_terms(single.process.dense().state()))
        self._arithmetic = False
        process = single.process
        start = repeated(process.dense(), 3)
        # Different places: a function that branches on a number fails or gives other numbers.
        after = dataclasses.replace(
            start,
            index=np.array([0, len(process.counts) // 2, len(process.counts) - 1]),
            latest=Metrics(np.array([0.1, 0.5, 0.9]), np.array([2.5, 1.0, 0.1])),  # type: ignore[arg-type]
        )
        ended = np.array([True, False, False])
        try:
            rewards, _ = self._together(start, after, ended)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            return
        self._arithmetic = bool(np.array_equal(rewards, self._one_by_one(start, after, ended)[0]))

    def __call__(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(N,) rewards, and (N,) of each term; N may be 0."""
        if not terminated.size:
            return np.zeros(0), self.nothing(0)
        if self._arithmetic:
            return self._together(before, after, terminated)
        return self._one_by_one(before, after, terminated)

    def nothing(self, slots: int) -> dict[str, np.ndarray]:
        """(N,) zeros for each term."""
        return {name: np.zeros(slots) for name in self._names}

    def _together(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        params, macs = self._dense
        outcome = Outcome(
            before=before.latest,
            after=after.latest,
            dense=self._dynamics.evaluator.dense,
            state=after,  # type: ignore[arg-type]
            previous=before,  # type: ignore[arg-type]
            dense_params=params,
            dense_macs=macs,
            terminated=terminated,  # type: ignore[arg-type]
        )
        earned = dict(self._dynamics.reward(outcome))
        if self._dynamics.constraint.binding:
            excess = after.process.excess[after.index]
            earned[UNMET] = unmet_budgets(self._dynamics.unmet, terminated, excess)
        terms = {
            name: self._dynamics.reward_scale * np.asarray(value, dtype=np.float64)
            for name, value in earned.items()
        }
        if not all(term.shape == terminated.shape for term in terms.values()):
            raise ValueError("a term is not one number per slot")
        if not all(np.isfinite(term).all() for term in terms.values()):
            return self._one_by_one(before, after, terminated)  # which says what is wrong
        return self._summed(terms, len(terminated)), terms

    def _one_by_one(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows = [
            self._dynamics.reward_terms(row(before, slot), row(after, slot), bool(ended))  # type: ignore[arg-type]
            for slot, ended in enumerate(terminated)
        ]
        terms = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return self._summed(terms, len(rows)), terms

    def _summed(self, terms: dict[str, np.ndarray], slots: int) -> np.ndarray:
        """(N,) sums of the terms, rounded as Python's `sum` does (which is not as `+` does)."""
        columns = list(terms.values())
        if len(columns) == 1:
            return columns[0] + 0.0
        lists = [column.tolist() for column in columns]
        return np.array([float(sum(row)) for row in zip(*lists, strict=True)] or np.zeros(slots))
