"""What a reward teaches: whoever earns most has done what was wanted.

Every action, constraint and reward together, on the solved tier: of 200 policies that do the same
in every step, the one with the highest return meets the budgets, and is among the best tenth of
those that do by the accuracy at the end. By `constraint="cost"` the budgets are no business of the
reward, so there only policies within the limit of the cost are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from pruning_env.process.constraints import constraint_names
from pruning_env.process.payment import Payment
from pruning_env.process.rewards import get_reward, reward_names
from pruning_env.process.state import PruningState
from pruning_env.tabular.env import ACTIONS, CNNPruneTabularEnv

POLICIES = 200

#: Steps that suffice for the budget by some actions, and by others do not.
STEPS: dict[str, dict[str, Any]] = {
    "distribution": {"max_steps": 6, "channels_per_step": 0.1},
    "ratio": {"max_steps": 2},
    "layerwise": {"max_steps": 6},
}

PAIRS = [
    (action, constraint)
    for action in ACTIONS
    for constraint in constraint_names()
    if (action, constraint) != ("layerwise", "project")  # refused
]


@dataclass(frozen=True)
class Policies:
    """What came of each: (N,) arrays."""

    returns: np.ndarray
    accuracy: np.ndarray
    cost: np.ndarray
    feasible: np.ndarray

    def check(self, constraint: str) -> None:
        assert 0 < self.feasible.sum() <= len(self.feasible)
        compared = self.cost <= 1.0 if constraint == "cost" else np.ones_like(self.feasible)
        best = np.argmax(np.where(compared, self.returns, -np.inf))
        assert self.feasible[best]
        assert self.accuracy[best] >= np.quantile(self.accuracy[self.feasible], 0.9)
        # Critics that start at 0 have not far to go.
        assert np.abs(self.returns).max() < 3.0


def actions_of(env: CNNPruneTabularEnv, seed: int = 0) -> np.ndarray:
    """(N, ...) raw actions: nothing, half, all, and what is drawn from the box."""
    shape = env.action_space.shape or ()
    drawn = np.random.default_rng(seed).uniform(-1.0, 1.0, (POLICIES, *shape))
    for policy, number in enumerate((-1.0, 0.0, 1.0)):
        drawn[policy] = number
    return drawn.astype(np.float32)


def make(action: str, constraint: str, **arguments: Any) -> CNNPruneTabularEnv:
    return CNNPruneTabularEnv(
        **{**STEPS[action], **arguments}, action=action, constraint=constraint
    )


Step = tuple[PruningState, PruningState, bool]


def walked(env: CNNPruneTabularEnv, actions: np.ndarray) -> list[tuple[list[Step], dict[str, Any]]]:
    """Each policy's steps, and the last info."""
    episodes = []
    for action in actions:
        env.reset()
        steps: list[Step] = []
        over = False
        while not over:
            before = env.state()
            _, _, over, _, info = env.step(action)
            steps.append((before, env.state(), over))
        episodes.append((steps, info))
    return episodes


def summed(terms: Mapping[str, float]) -> float:
    return float(sum(terms.values()))


def by_reward(env: CNNPruneTabularEnv, actions: np.ndarray) -> dict[str, Policies]:
    """What comes of each policy by every reward.

    What it does is the same by all of them, and what it earns is read off its steps.
    """
    episodes = walked(env, actions)
    ends = (
        np.array([info[key] for _, info in episodes]) for key in ("accuracy", "cost", "is_success")
    )
    accuracy, cost, feasible = ends
    found = {}
    for name in reward_names():
        env.dynamics.payment = Payment(env.graph, env.evaluator, get_reward(name), 1.0)
        returns = [
            sum(summed(env.dynamics.reward_terms(*step)) for step in steps) for steps, _ in episodes
        ]
        found[name] = Policies(np.array(returns), accuracy, cost, feasible)
    return found


@pytest.mark.parametrize(("action", "constraint"), PAIRS)
def test_the_best_by_return_is_feasible_and_among_the_best_by_accuracy(action, constraint):
    env = make(action, constraint)
    for policies in by_reward(env, actions_of(env)).values():
        policies.check(constraint)


@pytest.mark.slow
@pytest.mark.parametrize(("action", "constraint"), PAIRS)
@pytest.mark.parametrize(
    "budget", [{"params": 0.5}, {"params": 0.25}, {"params": 0.4, "macs": 0.3}]
)
def test_so_it_is_within_any_budget_and_by_what_an_environment_pays(action, constraint, budget):
    env = make(action, constraint, budget=budget)
    actions = actions_of(env, seed=1)
    for reward, policies in by_reward(env, actions).items():
        policies.check(constraint)
        paid = make(action, constraint, budget=budget, reward=reward)
        for chosen, expected in zip(actions[:20], policies.returns, strict=False):
            paid.reset()
            over, total = False, 0.0
            while not over:
                _, earned, over, _, _ = paid.step(chosen)
                total += float(earned)
            assert total == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("reward", reward_names())
def test_an_unmet_budget_costs_more_than_any_accuracy_is_worth_and_more_the_further(reward):
    env = make("ratio", "terminate", reward=reward)
    returns = []
    for share in (-1.0, -0.9, -0.8):
        env.reset()
        total, over = 0.0, False
        while not over:
            _, earned, over, _, info = env.step(np.full(6, share, np.float32))
            total += earned
        assert not info["is_success"] and info["reward_terms"]["unmet"] < -1.0
        returns.append(info["reward_terms"]["unmet"])
    assert returns == sorted(returns)
    env.reset()
    _, ruined, over, _, info = env.step(np.ones(6, np.float32))  # everything at its floor
    assert over and info["is_success"] and info["reward_terms"]["unmet"] == 0.0
    env.reset()
    nothing = env.step(np.full(6, -1.0, np.float32))[1] + env.step(np.full(6, -1.0, np.float32))[1]
    assert nothing < ruined


def test_a_limit_on_costs_takes_nothing_from_the_reward():
    env = make("ratio", "cost")
    env.reset()
    assert "unmet" not in env.step(np.full(6, -1.0, np.float32))[4]["reward_terms"]


def test_an_action_and_constraint_that_cannot_be_right_together_are_refused_with_the_reason():
    with pytest.raises(ValueError, match="its last step could only take from the last group"):
        make("layerwise", "project")
