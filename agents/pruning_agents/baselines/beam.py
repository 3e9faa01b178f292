"""Beam search over prunings: branch into every group, keep the best few states, go on.

The deterministic use of what `fork()` offers: a state is kept by keeping a reference, and any
number of actions can be tried from it.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.result import SearchResult
from pruning_agents.search.rollout import approach
from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition


def beam_search(
    env: gym.Env, evaluations: int, seed: int = 0, *, progress_bar: bool = False
) -> SearchResult | None:
    """Grow prunings from the dense network, several at once, one group at a time.

    From each state of the beam, L + 1 actions are tried: all groups alike, and each group alone as
    far as the softmax goes. The states reached are ranked by accuracy lost per reduction of the
    budget's excess, since among states of one step those that took cheap channels are further from
    the end; the best `width` go on. Width 1 is the greedy search; whenever a pass has ended and
    evaluations are left, another follows with twice the width, for which what was judged before is
    free.

    An action is kept for so many steps that the first pass has enough evaluations; a pass that runs
    out of them all the same is ended by pruning its best state alike everywhere.

    Args:
        env: a CNNPrune environment with `action="distribution"`, which is not stepped.
        evaluations: evaluations to spend at most, at least 1. It may end with some unspent, once
            doubling the width brings nothing new.
        seed: ignored, nothing is drawn.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Returns:
        The result, or None when no candidate met the budget.

    Raises:
        ValueError: if `evaluations` is below 1.
    """
    del seed
    with BudgetedSearch("beam-search", env, evaluations, progress_bar) as search:
        branches = np.vstack([np.zeros(search.groups), 2.0 * np.eye(search.groups) - 1.0])
        stride = _stride(search, len(branches), evaluations)
        width, spent = 1, -1
        while search.left and search.spent > spent:
            spent = search.spent
            _search(search, branches, width, stride)
            width *= 2
        return search.result


def _stride(search: BudgetedSearch, branches: int, evaluations: int) -> int:
    """Steps for which an action is kept, so that a pass of width 1 takes no more evaluations."""
    alike = np.zeros(search.groups)
    steps = approach(search.dynamics, search.start, alike).step + 1
    return max(1, -(-steps * branches // evaluations))


def _search(search: BudgetedSearch, branches: NDArray[np.float64], width: int, stride: int) -> None:
    """One pass from the dense network until no state of the beam can go on."""
    dynamics = search.dynamics
    beam = [search.start]
    while beam and search.left > 1:
        pairs = [(state, action) for state in beam for action in branches]
        room = search.left - 1  # the last one ends the pass
        ahead = [approach(dynamics, state, action, stride) for state, action in pairs[:room]]
        reached = search.steps(ahead, [action for _, action in pairs[:room]])
        beam = _best(dynamics, reached, width) or ([] if len(pairs) <= room else beam[:1])
    if beam and search.left:
        alike = np.zeros(search.groups)
        search.steps([approach(dynamics, beam[0], alike)], [alike])


def _best(dynamics: PruningDynamics, reached: list[Transition], width: int) -> list[PruningState]:
    """The `width` best different states that are not ends, best first."""
    different = {end.state.counts.tobytes(): end.state for end in reached if not end.terminated}
    ranked = sorted(different.values(), key=lambda state: _price(dynamics, state))
    return ranked[:width]


def _price(dynamics: PruningDynamics, state: PruningState) -> float:
    """Accuracy lost per reduction of the excess over the budgets, since the dense network."""
    assert state.metrics is not None
    dense = dynamics.initial()
    reduced = dynamics.excess(dense) - dynamics.excess(state)
    lost = dynamics.evaluator.dense.accuracy - state.metrics.accuracy
    return (lost + 1e-6) / max(reduced, 1e-12)
