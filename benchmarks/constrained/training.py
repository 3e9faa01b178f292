"""One run on the solved tier: train under a limit or at a fixed price, then judge the policy.

Both are trained alike, by the same settings and with as many episodes; only what they are told of
the parameters differs. Knows nothing of files, tables or figures.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.constrained.rows import FIXED, LAGRANGIAN, ConstrainedRow, Outcome, Rollout
from pruning_agents import PPOLagrangian
from pruning_agents.ppo_lagrangian.projection import projected_end
from pruning_agents.search.rows import Provenance
from pruning_env.tabular.env import CNNPruneTabularEnv

#: Episodes that the final policy is judged by: the mean cost is then known to about half a per
#: cent.
JUDGED = 1000

#: Points of a history that a row keeps.
_POINTS = 100

#: Of the environment. An action says of each group how much goes, so every size is within reach;
#: accuracy is looked up at an episode's end, so an episode costs one evaluation.
ENVIRONMENT: dict[str, Any] = {
    "constraint": "cost",
    "max_steps": 2,
    "action": "ratio",
    "reward": "final",
    "reward_scale": 100.0,  # percentage points, in which prices are given
}

#: Of the agents. The limit leaves a margin of 2.5 %, since what is learned is a mean that scatters
#: about it. Gains are above the defaults, for a multiplier that settles in some fifty rollouts.
#: Without a bound on the divergence, narrow policies at times jump, and have to begin anew.
TRAINING: dict[str, Any] = {
    "n_envs": 32,
    "n_steps": 8,
    "rollouts": 240,
    "batch_size": 64,
    "n_epochs": 4,
    "target_kl": 0.03,
    "learning_rate": 2e-3,
    "last_learning_rate": 2e-4,
    "net_arch": [32],
    "log_std_init": -1.0,
    "cost_limit": 0.975,
    "multiplier_lr": 0.3,
    "multiplier_gain": 4.0,
}

#: Those that a fixed price leaves out.
_LAGRANGIAN_ONLY = ("cost_limit", "multiplier_lr", "multiplier_gain")


@dataclass(frozen=True)
class Run:
    """What to train.

    Attributes:
        method: "ppo-lagrangian" or "fixed-price".
        number: the budget or the price; see `ConstrainedRow.number`.
        seed: of the training.
        rollouts: of the training; None for as many as `TRAINING` says.
    """

    method: str
    number: float
    seed: int
    rollouts: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Of environment and agent, as a row has them."""
        training = dict(TRAINING)
        if self.rollouts is not None:
            training["rollouts"] = self.rollouts
        if self.method == FIXED:
            for name in _LAGRANGIAN_ONLY:
                del training[name]
        return {"environment": ENVIRONMENT, "training": training}

    def execute(self, origin: Provenance) -> ConstrainedRow:
        """Train, judge, and say what came out."""
        settings = self.settings
        # A fixed price is on the parameters themselves: their cost, where the limit is the dense
        # network.
        limit = self.number if self.method == LAGRANGIAN else 1.0
        env = CNNPruneTabularEnv(budget={"params": limit}, **settings["environment"])
        training = settings["training"]
        history = _History()
        began = time.process_time()
        agent = self._agent(env, training)
        steps = training["rollouts"] * training["n_steps"] * training["n_envs"]
        agent.learn(steps, callback=history)
        seconds = time.process_time() - began
        projected: Outcome | None = None
        delivered: Outcome | None = None
        if isinstance(agent, PPOLagrangian):
            history.take_multipliers(agent)
            # Percentage points per unit of cost, and the limit is one unit.
            status, price = agent.status, agent.price / limit
            end = projected_end(agent, env).state
            projected = Outcome(1, end.params, end.latest.accuracy, float(end.params <= limit))
            delivered = max(
                projected, *history.best, key=lambda each: each.feasible * each.accuracy
            )
        else:
            status, price = "", self.number
        evaluations = env.evaluations
        return ConstrainedRow(
            method=self.method,
            number=self.number,
            seed=self.seed,
            settings=settings,
            history=history.thinned(_POINTS),
            policy=_judge(agent, env, training["n_envs"], JUDGED, deterministic=False),
            mode=_judge(agent, env, 1, 1, deterministic=True),
            status=status,
            price=price,
            optimum=env.optimum().accuracy if self.method == LAGRANGIAN else None,
            evaluations=evaluations,
            cpu_seconds=seconds,
            provenance=origin,
            projected=projected,
            delivered=delivered,
        )

    def _agent(self, env: CNNPruneTabularEnv, training: dict[str, Any]) -> PPO:
        first, last = training["learning_rate"], training["last_learning_rate"]
        arguments: dict[str, Any] = {
            "n_steps": training["n_steps"],
            "batch_size": training["batch_size"],
            "n_epochs": training["n_epochs"],
            "target_kl": training["target_kl"],
            "gamma": 1.0,
            "learning_rate": lambda remaining: last + (first - last) * remaining,
            "policy_kwargs": {
                "net_arch": training["net_arch"],
                "log_std_init": training["log_std_init"],
            },
            "seed": self.seed,
            "device": "cpu",
        }
        slots = training["n_envs"]
        if self.method == LAGRANGIAN:
            arguments |= {name: training[name] for name in _LAGRANGIAN_ONLY}
            return PPOLagrangian("MlpPolicy", DummyVecEnv([env.fork] * slots), **arguments)

        def priced() -> gym.Env[Any, Any]:
            return Priced(env.fork(), self.number)

        return PPO("MlpPolicy", DummyVecEnv([priced] * slots), **arguments)


class Priced(gym.Wrapper[Any, Any, Any, Any]):
    """The reward, less a fixed price times the cost: what a multiplier that never moves gives."""

    def __init__(self, env: gym.Env[Any, Any], price: float) -> None:
        super().__init__(env)
        self.price = price

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, the reward lowered by price · `info["cost"]`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) - self.price * info["cost"], terminated, truncated, info


class _History(BaseCallback):
    """Collects, per rollout, what the episodes that end in it use and earn."""

    def __init__(self) -> None:
        super().__init__()
        self._ends: list[tuple[float, float]] = []
        self._rollouts: list[Rollout] = []
        self._episodes = 0
        #: The most accurate network within the budget, if there was one.
        self.best: tuple[Outcome, ...] = ()

    def _on_step(self) -> bool:
        for end, info in zip(self.locals["dones"], self.locals["infos"], strict=True):
            if end:
                self._ends.append((info["params"], info["reward_terms"]["final"]))
                beaten = self.best and self.best[0].accuracy >= info["accuracy"]
                if info["is_success"] and not beaten:
                    self.best = (Outcome(1, info["params"], info["accuracy"], 1.0),)
        return True

    def _on_rollout_end(self) -> None:
        self._episodes += len(self._ends)
        usage, reward = np.mean(self._ends, axis=0) if self._ends else (math.nan, math.nan)
        self._rollouts.append(Rollout(self._episodes, 0.0, float(usage), float(reward)))
        self._ends.clear()

    def take_multipliers(self, agent: PPOLagrangian) -> None:
        """Put in λ, which an agent moves after each rollout."""
        self._rollouts = [
            Rollout(rollout.episodes, record.multiplier, rollout.usage, rollout.reward)
            for rollout, record in zip(self._rollouts, agent.history, strict=True)
        ]

    def thinned(self, points: int) -> tuple[Rollout, ...]:
        """At most `points` parts of equal length, each its mean."""
        table = np.array([[r.episodes, r.multiplier, r.usage, r.reward] for r in self._rollouts])
        parts: list[NDArray[np.float64]] = np.array_split(table, min(points, len(table)))
        return tuple(
            Rollout(int(part[-1, 0]), *(float(f"{mean:.5g}") for mean in part[:, 1:].mean(axis=0)))
            for part in parts
        )


def _judge(
    agent: PPO, env: CNNPruneTabularEnv, slots: int, episodes: int, *, deterministic: bool
) -> Outcome:
    """What the policy does in the first episodes that end in new slots of `env`."""
    envs = DummyVecEnv([env.fork] * slots)
    observations = envs.reset()
    ends: list[tuple[float, float, bool]] = []
    while len(ends) < episodes:
        actions, _ = agent.predict(observations, deterministic=deterministic)  # type: ignore[arg-type]
        observations, _, dones, infos = envs.step(actions)
        ends += [
            (info["params"], info["accuracy"], info["is_success"])
            for done, info in zip(dones, infos, strict=True)
            if done
        ]
    usage, accuracy, feasible = np.mean(ends, axis=0)
    return Outcome(len(ends), float(usage), float(accuracy), float(feasible))
