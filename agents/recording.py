"""A wrapper that remembers the best feasible end of the episodes that pass through it.

For agents that know nothing of prunings, such as those of Stable-Baselines3. It looks at the
environment before anybody can reset it, and changes nothing.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym

from agents.result import IncumbentTracker, SearchResult


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
