"""Constrained decision problems so small that the optimum and its multiplier are known.

They step in microseconds and report `info["cost"]` at every step. Tests solve them with an agent
and compare.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class QuadraticEnv(gym.Env[np.ndarray, np.ndarray]):
    """One step: observe x in U(0, 2), do a, earn -(a - x)², pay a.

    For a limit d < 1 the optimum is a(x) = x - λ*/2 with λ* = 2 (1 - d): the reward of each x loses
    λ*²/4, and a policy of standard deviation s loses s² more. Costs below 0 occur and are right.

    Args:
        unit: factor of the costs; the limit has to be multiplied by it too.
    """

    def __init__(self, unit: float = 1.0) -> None:
        self.observation_space = spaces.Box(0.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Box(-5.0, 5.0, (1,), np.float32)
        self.unit = unit

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.x = self.np_random.uniform(0.0, 2.0, 1).astype(np.float32)
        return self.x.copy(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = -float((action[0] - self.x[0]) ** 2)
        return self.x.copy(), reward, True, False, {"cost": self.unit * float(action[0])}

    @staticmethod
    def multiplier(limit: float) -> float:
        """λ* in units of reward per cost, for unit = 1."""
        return max(0.0, 2.0 * (1.0 - limit))


class LongQuadraticEnv(gym.Env[np.ndarray, np.ndarray]):
    """T steps: do a in each; at the end earn -scale · the mean of (a - 1)², and pay the mean of a.

    For a limit d < 1 the optimum is a = d, with λ* = 2 scale (1 - d). Until an episode ends there
    is neither reward nor cost.
    """

    length = 16
    scale = 100.0

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-5.0, 5.0, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.actions: list[float] = []
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.actions.append(float(action[0]))
        done = len(self.actions) == self.length
        reward = -self.scale * float(np.mean(np.square(np.array(self.actions) - 1.0)))
        cost = float(np.mean(self.actions))
        return self._observation(), reward if done else 0.0, done, False, {"cost": cost * done}

    def _observation(self) -> np.ndarray:
        return np.full(1, len(self.actions) / self.length, np.float32)

    @classmethod
    def multiplier(cls, limit: float) -> float:
        """λ* in units of reward per cost."""
        return max(0.0, 2.0 * cls.scale * (1.0 - limit))


SHARES = (0.25, 0.5, 0.75, 1.0)
#: Importance of the layers, and their parts of the cost.
WEIGHTS = (0.5, 0.3, 0.2)
SIZES = (0.2, 0.3, 0.5)


def layers_reward(levels: tuple[int, ...]) -> float:
    """A made-up accuracy: concave in each layer's share, and no better than the worst layer."""
    kept = [SHARES[level] for level in levels]
    mean = sum(weight * np.sqrt(share) for weight, share in zip(WEIGHTS, kept, strict=True))
    return float(10.0 * (0.7 * mean + 0.3 * min(kept)))


def layers_cost(levels: tuple[int, ...]) -> float:
    """The share of the parameters kept."""
    return float(sum(size * SHARES[lv] for size, lv in zip(SIZES, levels, strict=True)))


class LayersEnv(gym.Env[np.ndarray, np.int64]):
    """Three steps: how much of each of three layers to keep; reward and cost come at the end.

    The observation is one-hot of what was chosen before, so the best policy over whole sequences
    can be expressed.
    """

    def __init__(self) -> None:
        self.action_space = spaces.Discrete(len(SHARES))
        self.observation_space = spaces.Box(0.0, 1.0, (3 * len(SHARES),), np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.levels: tuple[int, ...] = ()
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.levels = (*self.levels, int(action))
        done = len(self.levels) == len(SIZES)
        reward = layers_reward(self.levels) if done else 0.0
        cost = layers_cost(self.levels) if done else 0.0
        return self._observation(), reward, done, False, {"cost": cost}

    def _observation(self) -> np.ndarray:
        observation = np.zeros((3, len(SHARES)), np.float32)
        for layer, level in enumerate(self.levels):
            observation[layer, level] = 1.0
        return observation.ravel()


@dataclass(frozen=True)
class Optimum:
    """The best expected reward within a limit, and the slope of reward over cost there."""

    reward: float
    multiplier: float


def brute_force(limit: float) -> Optimum:
    """The optimum of `LayersEnv` over all stochastic policies, by enumerating its 64 sequences.

    A stochastic policy mixes sequences, so what can be reached is the convex hull of their points;
    the best mixture within the limit mixes two.
    """
    sequences = list(itertools.product(range(len(SHARES)), repeat=len(SIZES)))
    points = [(layers_cost(levels), layers_reward(levels)) for levels in sequences]
    best = Optimum(max(r for c, r in points if c <= limit), 0.0)
    for (c0, r0), (c1, r1) in itertools.permutations(points, 2):
        if c0 <= limit < c1:
            slope = (r1 - r0) / (c1 - c0)
            reward = r0 + slope * (limit - c0)
            if reward > best.reward + 1e-12:
                best = Optimum(reward, slope)
    return best


#: One number per step.
Episode = tuple[float, ...]


class ScriptedEnv(gym.Env[np.ndarray, np.ndarray]):
    """Episodes of given lengths and costs, whatever is done; the observation counts the steps.

    Args:
        costs: one tuple per episode, one cost per step, repeated for ever.
        truncated: whether episodes are truncated at their end, or terminate.
        rewards: as costs; the costs themselves if None.
        missing_at: step, counted over all episodes, whose info has no cost; None for no such step.
    """

    def __init__(
        self,
        costs: tuple[Episode, ...],
        truncated: bool = False,
        rewards: tuple[Episode, ...] | None = None,
        missing_at: int | None = None,
    ) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.costs, self.rewards = costs, costs if rewards is None else rewards
        self.truncated, self.missing_at = truncated, missing_at
        self.episode, self.steps = -1, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.episode = (self.episode + 1) % len(self.costs)
        self.position = 0
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        cost = self.costs[self.episode][self.position]
        reward = self.rewards[self.episode][self.position]
        info = {} if self.steps == self.missing_at else {"cost": cost}
        self.position += 1
        self.steps += 1
        end = self.position == len(self.costs[self.episode])
        observation = self._observation()
        return observation, reward, end and not self.truncated, end and self.truncated, info

    def _observation(self) -> np.ndarray:
        return np.full(1, self.position / 10.0, np.float32)
