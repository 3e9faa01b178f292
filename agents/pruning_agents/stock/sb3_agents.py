"""Stable-Baselines3's algorithms, and `PPOLagrangian`, as agents that search prunings.

They learn on the environment as it is and know nothing of prunings, so a wrapper remembers the best
feasible end of their episodes. Settings come from the YAML files of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import A2C, DDPG, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from pruning_agents.ppo_lagrangian.algorithm import PPOLagrangian
from pruning_agents.search.recording import IncumbentRecorder
from pruning_agents.search.result import SearchResult
from pruning_agents.search.training import Learner
from pruning_agents.stock.scaling import ScaledReward
from pruning_agents.stock.settings import read_settings, settings_file, task_of

#: A setting of ours: the scale of Gaussian noise on the actions of deterministic policies.
ACTION_NOISE = "action_noise_std"

#: A setting of ours: what rewards are multiplied by before the algorithm sees them.
REWARD_SCALE = "reward_scale"

#: Arguments of algorithms that are no settings.
_GIVEN = {
    *("self", "policy", "env", "seed", "device", "verbose", "tensorboard_log"),
    *("action_noise", "ppo_arguments", "_init_setup_model"),
}


@dataclass(frozen=True)
class StockAgent:
    """A registered algorithm.

    Attributes:
        name: what users type, and what the settings file is called.
        algorithm: its class.
        constrained: whether it learns from costs, so that the environment must report them.
    """

    name: str
    algorithm: type[BaseAlgorithm]
    constrained: bool = False

    @property
    def learner(self) -> Learner:
        """How it is made and asked."""
        return Learner(self.name, self.algorithm, self.make, self.wrap, _incumbent)

    def make(self, env: gym.Env, seed: int, tensorboard_log: str | None = None) -> BaseAlgorithm:
        """A new agent for a pruning environment, with the settings for its task.

        Raises:
            ValueError: the environment does not suit it; the message says how to make one.
        """
        self._check(env)
        settings = self._settings(env)
        settings.pop(REWARD_SCALE, None)  # `wrap` sees to it
        if ACTION_NOISE in settings:
            zeros = np.zeros(env.action_space.shape or ())
            scale = np.full_like(zeros, settings.pop(ACTION_NOISE))
            settings["action_noise"] = NormalActionNoise(zeros, scale)
        dictionary = isinstance(env.observation_space, spaces.Dict)
        return self.algorithm(
            "MultiInputPolicy" if dictionary else "MlpPolicy",
            self.wrap(env),
            seed=seed,
            tensorboard_log=tensorboard_log,
            device="cpu",  # networks as small as these are no work for an accelerator
            **settings,
        )

    def wrap(self, env: gym.Env) -> gym.Env:
        """The environment as the agent needs it; its monitor sees the true rewards."""
        monitored = Monitor(IncumbentRecorder(env, self.name))
        scale = self._settings(env).get(REWARD_SCALE, 1.0)
        return monitored if scale == 1.0 else ScaledReward(monitored, scale)

    def _settings(self, env: gym.Env) -> dict[str, Any]:
        unwrapped: Any = env.unwrapped
        one_step = unwrapped.dynamics.constraint.max_steps == 1
        return read_settings(
            settings_file(self.name), task_of(env), self.allowed_settings(), one_step=one_step
        )

    def allowed_settings(self) -> set[str]:
        """Names that its settings file may use."""
        allowed = {REWARD_SCALE}
        for each in inspect.getmro(self.algorithm):
            if each is BaseAlgorithm:
                break
            parameters = inspect.signature(each).parameters
            allowed |= set(parameters) - _GIVEN
            # Without keyword arguments to pass on, those of the parents are out of reach.
            if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                break
        if issubclass(self.algorithm, OffPolicyAlgorithm):
            allowed.add(ACTION_NOISE)
        return allowed

    def _check(self, env: gym.Env) -> None:
        continuous = isinstance(env.action_space, spaces.Box)
        if issubclass(self.algorithm, OffPolicyAlgorithm) and not continuous:
            raise ValueError(
                f"{self.name} needs continuous actions, not {env.action_space}; make the "
                "environment with action='distribution' or action='ratio'"
            )
        unwrapped: Any = env.unwrapped
        constraint = unwrapped.dynamics.constraint.name
        if self.constrained and constraint != "cost":
            raise ValueError(
                f"{self.name} needs an environment whose budget is a limit on costs; this one has "
                f"constraint={constraint!r}. Make it with constraint='cost' and max_steps, such as "
                "gym.make('CNNPrune-v0', constraint='cost', max_steps=2, action='ratio'), or on "
                "the command line with --constraint cost --max-steps 2 --action ratio"
            )


def _incumbent(agent: BaseAlgorithm) -> SearchResult | None:
    vec_env = agent.get_env()
    assert vec_env is not None
    return vec_env.env_method("incumbent")[0]


def stock_agents() -> tuple[StockAgent, ...]:
    """The agents that can be had; those of sb3-contrib only where it is installed."""
    agents = [
        StockAgent("ppo", PPO),
        StockAgent("a2c", A2C),
        StockAgent("sac", SAC),
        StockAgent("td3", TD3),
        StockAgent("ddpg", DDPG),
    ]
    if importlib.util.find_spec("sb3_contrib") is not None:
        contrib = importlib.import_module("sb3_contrib")
        agents += [
            StockAgent("trpo", contrib.TRPO),
            StockAgent("tqc", contrib.TQC),
        ]
    agents.append(StockAgent("ppo-lagrangian", PPOLagrangian, constrained=True))
    return tuple(agents)
