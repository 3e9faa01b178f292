"""Wrappers that watch the episodes that pass through them: the best feasible end, and violations.

For agents that know nothing of prunings, such as those of Stable-Baselines3. They look at the
environment before anybody can reset it, and change nothing, but that one of them ends what has
spent its evaluations.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym

from pruning_agents.search.budgeted_search import MAX_VISITS_PER_EVALUATION
from pruning_agents.search.result import IncumbentTracker, SearchResult, ending


class EvaluationsSpent(Exception):
    """A search has had all its evaluations; to let it pass is a good way to end."""


class IncumbentRecorder(gym.Wrapper):
    """Offers the state at each feasible end of an episode to an `IncumbentTracker`.

    An end is judged on search-val anyway, so this costs no evaluation.

    Args:
        env: a pruning environment, wrapped or not.
        agent: registered name of the method that acts.

    Attributes:
        tracker: the best end so far.
        before: evaluations that the environment had spent when recording began.
    """

    def __init__(self, env: gym.Env, agent: str) -> None:
        super().__init__(env)
        self.tracker = IncumbentTracker(agent)
        self.before = self._evaluations()

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's; a feasible end is remembered."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and info["is_success"]:
            state = self.env.unwrapped.state()  # type: ignore[attr-defined]
            self.tracker.offer(state, self._evaluations() - self.before)
        return observation, reward, terminated, truncated, info

    def incumbent(self) -> SearchResult | None:
        """The best feasible end so far; None while there is none."""
        return self.tracker.result(self._evaluations() - self.before)

    def _evaluations(self) -> int:
        return int(self.env.unwrapped.evaluations)  # type: ignore[attr-defined]


class LimitedRecorder(IncumbentRecorder):
    """An `IncumbentRecorder` that makes no step once the evaluations are spent.

    A step judges one network at most, so that no step spends too much. As elsewhere, there is an
    end after `MAX_VISITS_PER_EVALUATION` times as many judgements, repeat visits included.

    Args:
        env: a pruning environment, wrapped or not.
        agent: name of the method that acts.
        evaluations: that may be spent.
    """

    def __init__(self, env: gym.Env, agent: str, evaluations: int) -> None:
        super().__init__(env, agent)
        self._limit = evaluations
        self._visits = 0
        self._lazy = bool(env.unwrapped.dynamics.lazy)  # type: ignore[attr-defined]

    @property
    def left(self) -> int:
        """Evaluations that may still be spent; 0 also after too many visits that cost nothing."""
        return 0 if self._tired else self._unspent

    @property
    def ended(self) -> str:
        """Why a search that ends here does, of `ENDINGS`."""
        return ending(self._unspent, self._tired)

    @property
    def _unspent(self) -> int:
        return self._limit - (self._evaluations() - self.before)

    @property
    def _tired(self) -> bool:
        return self._visits >= MAX_VISITS_PER_EVALUATION * self._limit

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's.

        Raises:
            EvaluationsSpent: nothing may be spent any more.
        """
        if self.left <= 0:
            raise EvaluationsSpent(f"all of {self._limit} evaluations are spent")
        outcome = super().step(action)
        self._visits += 1 if outcome[2] or not self._lazy else 0
        return outcome


class ViolationCounter(gym.Wrapper):
    """Counts episodes, and those that end outside a budget.

    Attributes:
        episodes: that came to their end.
        violations: those of them that did not meet every budget.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.episodes = 0
        self.violations = 0

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's."""
        outcome = self.env.step(action)
        if outcome[2]:
            self.episodes += 1
            self.violations += not outcome[4]["is_success"]
        return outcome
