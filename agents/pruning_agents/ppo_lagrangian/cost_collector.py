"""What is noted of costs while an agent collects a rollout: each step's, and each episode's sum.

Costs are read as the environment reports them, in `info["cost"]`, before any normalisation. Knows
nothing of multipliers or of how a policy is improved.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import obs_as_tensor

from pruning_agents.ppo_lagrangian.cost_buffer import CostRolloutBuffer
from pruning_agents.ppo_lagrangian.cost_critic import CostCritic

COST_KEY = "cost"


def read_costs(infos: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """(N,) the costs that N environments report for one step.

    Raises:
        ValueError: where one reports none, or something that is no finite number. A cost that is
            taken for 0 because it is missing is a constraint that vanishes unnoticed.
    """
    costs = np.zeros(len(infos))
    for index, info in enumerate(infos):
        if COST_KEY not in info:
            raise ValueError(
                f"info of environment {index} has no key {COST_KEY!r}; it must report the cost of "
                f"every step, 0.0 where there is none; its keys: {', '.join(sorted(info))}"
            )
        cost = info[COST_KEY]
        # A 0-d array is what NumPy code easily makes of a number.
        if isinstance(cost, np.ndarray) and cost.ndim == 0:
            cost = cost.item()
        if not isinstance(cost, Real) or not math.isfinite(cost):
            raise ValueError(
                f"info[{COST_KEY!r}]={cost!r} of environment {index} is not allowed; "
                f"give a finite number"
            )
        costs[index] = float(cost)
    return costs


class EpisodeSums:
    """Undiscounted sums of cost and reward over the running episodes of N environments.

    Args:
        n_envs: N.
    """

    def __init__(self, n_envs: int) -> None:
        self._running = np.zeros((2, n_envs))
        self._finished: list[tuple[float, float]] = []

    def add(
        self, costs: NDArray[Any], rewards: NDArray[Any], ends: NDArray[np.bool_]
    ) -> list[float]:
        """Add a step, (N,) each, and return the costs of the episodes that ended with it."""
        self._running += np.stack([costs, rewards])
        ended = [(float(cost), float(reward)) for cost, reward in self._running.T[ends]]
        self._finished += ended
        self._running[:, ends] = 0.0
        return [cost for cost, _ in ended]

    def take(self) -> NDArray[np.float64]:
        """(E, 2) cost and reward of the E episodes that ended since the last call."""
        finished, self._finished = self._finished, []
        return np.array(finished).reshape(-1, 2)


class NoteCosts(Protocol):
    """Where the raw costs of a step go."""

    def __call__(
        self, costs: NDArray[Any], rewards: NDArray[Any], ends: NDArray[np.bool_], /
    ) -> None:
        """Costs, rewards and whether the episode ended, (N,) each."""


class CostCollector(BaseCallback):
    """Fills the cost side of an agent's rollout buffer, step by step.

    Args:
        critic: estimates the costs to come.
        buffer: the agent's, which has the rewards' side already.
        limit: the unit in which the buffer holds costs.
        note: is told the raw costs.
    """

    def __init__(
        self, critic: CostCritic, buffer: CostRolloutBuffer, limit: float, note: NoteCosts
    ) -> None:
        super().__init__()
        self._critic, self._buffer, self._limit, self._note = critic, buffer, limit, note

    def _on_step(self) -> bool:
        infos, ends = self.locals["infos"], self.locals["dones"]
        costs = read_costs(infos)
        self._note(costs, self._raw_rewards(), ends)
        end_values = np.zeros(len(infos), np.float32)
        for index in np.flatnonzero(ends):
            # SB3's own condition for bootstrapping the rewards.
            if infos[index].get("TimeLimit.truncated", False):
                state, _ = self.model.policy.obs_to_tensor(infos[index]["terminal_observation"])
                end_values[index] = self._critic.values(state)[0]
        values = self._critic.values(self.locals["obs_tensor"])
        # In units of the limit, so that a task in other units trains the same agent.
        self._buffer.add_cost(costs / self._limit, values, ends, end_values)
        return True

    def _raw_rewards(self) -> NDArray[Any]:
        normalizer = self.model.get_vec_normalize_env()
        return self.locals["rewards"] if normalizer is None else normalizer.get_original_reward()

    def _on_rollout_start(self) -> None:
        self._critic.set_training_mode(False)

    def _on_rollout_end(self) -> None:
        last = obs_as_tensor(self.locals["new_obs"], self.model.device)
        values = self._critic.values(last)
        self._buffer.compute_cost_returns_and_advantage(values)
