"""Judging what actions lead to: Q(s, a) = R + γ · max Q(s', a'), all networks of a level together.

R is what the state reached is worth by the environment's reward (`PruningDynamics.worth`), whether
or not an episode ends there. The value that `RLPruner` ranks its candidates by. It knows the
pruning dynamics, and neither how actions are drawn nor what is done with the values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_agents.search.rollout import approach
from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition

Action = NDArray[np.floating]


@dataclass(frozen=True)
class Lookahead:
    """How far actions are followed before they are valued.

    Attributes:
        steps: for which an action is kept before the outcome is judged; None for the rest of the
            episode.
        depth: actions in a row. 1 is R alone; deeper, others follow from where the first one led.
        discount: γ.
        branches: actions that are tried from each state below the first.
    """

    steps: int | None = None
    depth: int = 1
    discount: float = 0.9
    branches: int = 10


def look_ahead(
    dynamics: PruningDynamics,
    states: Sequence[PruningState],
    actions: Sequence[Action],
    rule: Lookahead,
    draw: Callable[[], Action],
    room: int,
) -> tuple[NDArray[np.float64], list[Transition]]:
    """Value actions (n of them, each (L,)), each from its state.

    Args:
        dynamics: of the environment.
        states: n judged states that are not ends.
        actions: n actions.
        rule: how far to look.
        draw: gives the actions below the first level.
        room: transitions to make at most, at least n; below the first level, states of equal depth
            share what is left evenly.

    Returns:
        (n,) values, and all transitions made, those of the n actions first.
    """
    ahead = [approach(dynamics, *pair, rule.steps) for pair in zip(states, actions, strict=True)]
    ends = dynamics.transition_many(ahead, actions)
    values = np.array(dynamics.worth([end.state for end in ends]))
    going_on = [index for index, end in enumerate(ends) if not end.terminated]
    parents = (going_on * rule.branches)[: room - len(ends)]
    if rule.depth == 1 or not parents:
        return values, ends
    below, more = look_ahead(
        dynamics,
        [ends[index].state for index in parents],
        [draw() for _ in parents],
        Lookahead(rule.steps, rule.depth - 1, rule.discount, rule.branches),
        draw,
        room - len(ends),
    )
    best = np.full(len(ends), -np.inf)
    np.maximum.at(best, parents, below)
    return values + rule.discount * np.where(np.isfinite(best), best, 0.0), [*ends, *more]
