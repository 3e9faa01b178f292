"""What is delivered of a policy under a limit that holds on average: a network that keeps it.

Knows nothing of how the policy was trained.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.process.state import Transition


class Predictor(Protocol):
    """An agent of Stable-Baselines3, or what acts like one."""

    def predict(self, observation: Any, *, deterministic: bool) -> tuple[np.ndarray, Any]:
        """Actions, and the state of a recurrent policy."""


def projected_end(agent: Predictor, env: CNNPruneEnv) -> Transition:
    """The end of the deterministic policy's episode, projected onto the budgets.

    A limit on a mean is no limit on each episode, and the most likely actions of a policy can be
    over it where the policy as it was trained, with its noise, is not. By `constraint="project"`
    the same actions end at the budgets, whether they ask for too much or too little (by "wall",
    where groups take turns). Feasible unless even the floors are above a budget.

    Args:
        agent: trained on `env` or one like it.
        env: the environment itself, whose episode does not move. One evaluation with a reward that
            is paid at the end, unless that network was judged before.
    """
    dynamics = env.dynamics.under("wall" if env.dynamics.action.turns else "project")
    state = dynamics.initial()
    while True:
        action, _ = agent.predict(env.observe(state), deterministic=True)
        step = dynamics.transition(state, action)
        if step.terminated:
            return step
        state = step.state
