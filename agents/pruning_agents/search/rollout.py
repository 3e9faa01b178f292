"""Looking ahead: what comes of keeping one action for several steps, at the price of one judgement.

Shared by everything that judges a whole distribution at once. It knows the pruning dynamics, and
neither who chose the action nor how good the outcome is.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition


def approach(
    dynamics: PruningDynamics,
    state: PruningState,
    action: NDArray[np.floating],
    steps: int | None = None,
) -> PruningState:
    """Repeat `action` (L,) from `state` up to one step before the end of the look-ahead.

    The states on the way are not evaluated. The one returned knows the metrics of `state`, so
    the transition that follows it costs one evaluation, and its reward is that of the whole
    stretch: for "accuracy_change", the accuracy at its end minus the accuracy at `state`.

    Args:
        dynamics: of the environment; nothing is evaluated with it.
        state: judged and not terminal.
        action: one action, kept for the whole stretch.
        steps: length of the stretch, the last transition included; None for the end of the episode.
    """
    ahead = state
    while steps is None or ahead.step - state.step < steps - 1:
        following = dynamics.apply(ahead, action)
        if dynamics.terminal(following):
            break
        ahead = dataclasses.replace(following, known=state.latest)
    return ahead


def finish(
    dynamics: PruningDynamics, state: PruningState, action: NDArray[np.floating]
) -> Transition:
    """Keep `action` (L,) from `state` to the end of the episode; one evaluation."""
    return dynamics.transition(approach(dynamics, state, action), action)


def feasible_end(transition: Transition) -> bool:
    """Whether a transition ends its episode within every budget."""
    return transition.terminated and transition.feasible
