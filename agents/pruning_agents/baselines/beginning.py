"""Where searches around one action begin: at the best of what they judge first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning_agents.proposals.start import start_actions
from pruning_agents.search.budgeted_search import BudgetedSearch

__all__ = ["best_start"]


def best_start(search: BudgetedSearch, warm_start: str) -> NDArray[np.float64]:
    """(L,) the best action among those of `warm_start`, which are judged; else the zero action."""
    actions = start_actions(search.dynamics, warm_start)
    values = search.worth(actions)
    if not values:
        return np.zeros(search.groups)
    return np.asarray(actions[int(np.argmax(values))], dtype=np.float64)
