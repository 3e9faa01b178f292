"""Candidates that are judged together, all in full or in a race: values for all, ends of some.

Whether there are races, the environment says (`race=`). Knows nothing of how candidates are chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition

__all__ = ["race"]


def race(
    dynamics: PruningDynamics,
    states: Sequence[PruningState],
    actions: Sequence[NDArray[np.floating]],
) -> tuple[NDArray[np.float64], list[tuple[Transition, NDArray[np.floating]]]]:
    """What one step from each state leads to, judged in a race.

    Args:
        dynamics: of an environment with `race=`.
        states: n of them; the step from each ends its episode.
        actions: n actions (L,).

    Returns:
        (n,) what the ends are worth by the environment's reward, and the transitions to those
        that were judged on all images, each with its action. Who fell out is worth what its part of
        the images says, but no more than the worst of the others, which were ahead of it.
    """
    ends = [dynamics.apply(*pair) for pair in zip(states, actions, strict=True)]
    raced = dynamics.evaluator.race_many([end.keep for end in ends])
    judged = [
        dataclasses.replace(end, metrics=each.metrics, known=None)
        for end, each in zip(ends, raced, strict=True)
    ]
    values = np.array(dynamics.worth(judged))
    through = np.array([each.complete for each in raced], dtype=np.bool_)
    if through.any():
        values = np.where(through, values, np.minimum(values, values[through].min()))
    chosen = np.flatnonzero(through).tolist()
    kept = [actions[index] for index in chosen]
    # Their metrics are remembered, so that nothing is judged again.
    transitions = dynamics.transition_many([states[index] for index in chosen], kept)
    return values, list(zip(transitions, kept, strict=True))
