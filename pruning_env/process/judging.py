"""What is measured of states: search-val metrics, and how sensitive their networks are.

Says which states an evaluator is asked about, and when. Knows nothing of how a step prunes, what it
earns or when an episode ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pruning_env.process.state import PruningState

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.process.sensitivity import SensitivityMeter

__all__ = ["StateJudge"]


class StateJudge:
    """Judges states of one process, those that need it together.

    Args:
        evaluator: judges keep masks on search-val.
        lazy: whether only an episode's last state is judged.
        sensitivity: measures what states carry of it; None: they carry none.
    """

    def __init__(
        self, evaluator: Evaluator, *, lazy: bool, sensitivity: SensitivityMeter | None
    ) -> None:
        self._evaluator = evaluator
        self._lazy = lazy
        self._sensitivity = sensitivity

    def judge_many(self, states: Sequence[PruningState]) -> list[PruningState]:
        """The same states with their metrics; those that have none are evaluated together."""
        judged = list(states)
        waiting = []
        for index, state in enumerate(states):
            if state.metrics is not None:
                continue
            if state.keep.all():
                # The dense network needs no recovery, and no evaluation of the agent's.
                dense = self._evaluator.dense
                judged[index] = dataclasses.replace(state, metrics=dense, known=None)
            else:
                waiting.append(index)
        if waiting:
            answers = self._evaluator.recover_many(
                [states[index].keep for index in waiting],
                [states[index].weights for index in waiting],
            )
            for index, answer in zip(waiting, answers, strict=True):
                judged[index] = dataclasses.replace(
                    states[index], metrics=answer.metrics, weights=answer.weights, known=None
                )
        return judged

    def train(self, state: PruningState) -> PruningState:
        """The same state with its network trained and judged: what an episode goes on with.

        The student teaches from now on if it is better on search-val than who taught it. Nothing is
        trained where nothing was cut since the last training.
        """
        weights, teacher = state.weights, state.teacher
        if state.keep.all() or (weights is not None and np.array_equal(weights.keep, state.keep)):
            return state
        answer = self._evaluator.train(
            state.keep, weights, None if teacher is None else teacher.weights
        )
        best = self._evaluator.dense if teacher is None else teacher.metrics
        return dataclasses.replace(
            state,
            metrics=answer.metrics,
            weights=answer.weights,
            known=None,
            teacher=answer if answer.metrics.accuracy > best.accuracy else teacher,
        )

    def settle_many(
        self, states: Sequence[PruningState], terminal: Callable[[PruningState], bool]
    ) -> list[PruningState]:
        """The same states as an episode has them; see `PruningDynamics.settle_many`."""
        settled = list(states)
        waiting = []
        for index, state in enumerate(states):
            spared = self._lazy or state.known is not None
            if spared and state.metrics is None and not terminal(state):
                known = self._evaluator.dense if state.known is None else state.known
                settled[index] = dataclasses.replace(state, known=known)
            else:
                waiting.append(index)
        for index, state in zip(
            waiting, self.judge_many([states[index] for index in waiting]), strict=True
        ):
            settled[index] = state
        meter = self._sensitivity
        if meter is None:
            return settled
        return [
            state
            if state.sensitivity is not None
            else dataclasses.replace(state, sensitivity=meter.of(state))
            for state in settled
        ]
