"""What a search begins with: nothing, the zero action, or what the rules of thumb propose.

A best rule is a gain while evaluations are few, and can be a trap later: on the solved tier at half
the MACs it is 1 point ahead of uniform pruning after 10 evaluations and as good after 200; at a
quarter of the parameters RLPruner, CEM and hill climbing are 2 to 4 points behind after 100 (2 or 3
seeds). So searches begin with uniform pruning unless they are told otherwise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pruning_agents.proposals.rules import rule_actions
from pruning_env.arguments import check_choice
from pruning_env.process.dynamics import PruningDynamics

__all__ = ["WARM_STARTS", "check_warm_start", "start_actions"]

WARM_STARTS = ("none", "uniform", "rules")
"""Nothing; the zero action, which is uniform pruning; every rule that costs one evaluation."""


def check_warm_start(warm_start: str) -> None:
    """Raise `ValueError` unless it is one of `WARM_STARTS`."""
    check_choice("warm_start", warm_start, WARM_STARTS)


def start_actions(dynamics: PruningDynamics, warm_start: str) -> list[NDArray[np.floating]]:
    """The (L,) actions that a search judges before any of its own; it goes on around the best.

    Rules that judge many networks on search-train before they propose one are not among them.

    Args:
        dynamics: of an environment with `action="distribution"`; nothing is evaluated.
        warm_start: one of `WARM_STARTS`.

    Raises:
        ValueError: it is another, or the environment's actions are no distributions.
    """
    check_warm_start(warm_start)
    if warm_start == "none":
        return []
    if warm_start == "uniform":
        return [np.zeros(len(dynamics.graph.groups), dtype=np.float32)]
    return list(rule_actions(dynamics, probes=False).values())
