"""A policy that is over its limit, projected: what is delivered is within every budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pruning_agents.ppo_lagrangian.projection import projected_end
from pruning_env.tabular.env import CNNPruneTabularEnv


class Always:
    """The same action whatever is seen."""

    def __init__(self, action: np.ndarray) -> None:
        self.action = action

    def predict(self, observation: Any, *, deterministic: bool) -> tuple[np.ndarray, None]:
        assert deterministic
        return self.action, None


@pytest.mark.parametrize(
    "settings", [{"action": "ratio", "max_steps": 2}, {"action": "layerwise", "max_steps": 6}]
)
@pytest.mark.parametrize("share", [-0.9, -0.2, 0.9])
@pytest.mark.parametrize("budget", [{"params": 0.2}, {"params": 0.5, "macs": 0.4}])
def test_too_much_or_too_little_ends_at_the_budgets(settings, share, budget):
    env = CNNPruneTabularEnv(budget=budget, constraint="cost", reward="final", **settings)
    env.reset()
    before = env.state()
    end = projected_end(Always(np.full(env.action_space.shape or (), share, np.float32)), env)
    assert end.terminated and end.feasible and end.state.metrics is not None
    if settings["action"] == "ratio":  # by "wall" a step never removes less than asked
        assert (
            max(u / limit for u, limit in zip(end.state.usage, budget.values(), strict=True)) > 0.85
        )
    assert env.state() == before and env.dynamics.constraint.name == "cost"


def test_an_action_in_turns_cannot_be_projected_and_the_dynamics_say_so():
    env = CNNPruneTabularEnv(action="layerwise", max_steps=6, constraint="cost")
    with pytest.raises(ValueError, match="its last step could only take from the last group"):
        env.dynamics.under("project")
