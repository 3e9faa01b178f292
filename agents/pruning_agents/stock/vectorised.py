"""PPO on many episodes of the solved tier at once.

A step on the table takes a fraction of the time in which PPO's networks choose an action, so with
many episodes they are asked once for all of them.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from pruning_agents.search.result import IncumbentTracker, Search, SearchResult
from pruning_agents.search.training import Learner, Start, train
from pruning_agents.stock.sb3_agents import REWARD_SCALE, StockAgent
from pruning_agents.stock.settings import read_settings, settings_file, task_of
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.sb3 import CNNPruneTabularVecEnv

__all__ = ["vectorised_ppo"]

_NAME = "vectorised-ppo"

#: Episodes at once, steps of each between two updates, and transitions in a batch. Rollouts and
#: batches are eight times those of `ppo`, so that there are an eighth of the updates.
_ENVS, _STEPS, _BATCH = 64, 16, 512


class _IncumbentRecorder(VecEnvWrapper):
    """Offers the states at feasible ends of episodes to an `IncumbentTracker`.

    All ends of one step count as found when the step was over.
    """

    def __init__(self, venv: CNNPruneTabularVecEnv) -> None:
        super().__init__(venv)
        self._table = venv
        self._tracker = IncumbentTracker(_NAME)
        self._before = venv.envs.evaluations

    def reset(self) -> VecEnvObs:
        return self.venv.reset()

    def step_wait(self) -> VecEnvStepReturn:
        observations, rewards, dones, infos = self.venv.step_wait()
        for slot in np.flatnonzero(dones).tolist():
            state = self._tracker.state
            best = -1.0 if state is None else state.latest.accuracy
            # Most are worse, and a state takes longer to make than to be compared.
            if infos[slot]["is_success"] and infos[slot]["accuracy"] >= best:
                self._tracker.offer(self._table.last_state(slot), self._spent)
        return observations, rewards, dones, infos

    def incumbent(self) -> SearchResult | None:
        """The best feasible end so far; None while there is none."""
        return self._tracker.result(self._spent)

    @property
    def _spent(self) -> int:
        return self._table.envs.evaluations - self._before


def vectorised_ppo(
    env: gym.Env, evaluations: int, seed: int, *, progress_bar: bool = False
) -> Search:
    """Stable-Baselines3's PPO on 64 episodes of `CNNPruneTabular-v0` at once.

    Settings are those of `ppo`, with rollouts and batches that are eight times as large. A step may
    spend 64 evaluations, so up to 63 of those that are allowed are left.

    Args:
        env: a `CNNPruneTabular-v0` from `gym.make`, without wrappers that change it; it is not
            stepped, and counts what is spent.
        evaluations: to spend at most, at least 1.
        seed: of the agent.
        progress_bar: whether to show evaluations spent on the standard error stream.

    Raises:
        ValueError: another environment, or one whose budget is a limit on costs: violations are
            counted where an environment is stepped.
    """
    single = env.unwrapped
    if not isinstance(single, CNNPruneTabularEnv) or single.spec is None:
        raise ValueError(
            f"env={env!r} is not allowed; give gym.make('CNNPruneTabular-v0', ...), which can be "
            "stepped as arrays"
        )
    if single.dynamics.constraint.name == "cost":
        raise ValueError("constraint='cost' is not allowed with vectorised_ppo; use ppo-lagrangian")
    ppo = StockAgent("ppo", PPO)
    settings = read_settings(settings_file("ppo"), task_of(env), ppo.allowed_settings())
    kwargs = dict(single.spec.kwargs)
    kwargs["reward_scale"] = kwargs.get("reward_scale", 1.0) * settings.pop(REWARD_SCALE, 1.0)
    table = CNNPruneTabularVecEnv(
        min(_ENVS, evaluations), max_episode_steps=single.spec.max_episode_steps, **kwargs
    )
    table.envs.evaluator.share(single.evaluator.ledger)
    recorder = _IncumbentRecorder(table)

    dictionary = isinstance(table.observation_space, spaces.Dict)
    policy = "MultiInputPolicy" if dictionary else "MlpPolicy"
    settings |= {"n_steps": _STEPS, "batch_size": min(_BATCH, _STEPS * table.num_envs)}
    agent = PPO(policy, recorder, seed=seed, device="cpu", **settings)
    learner = Learner(_NAME, PPO, ppo.make, ppo.wrap, lambda agent: recorder.incumbent())
    return train(Start(learner, agent), evaluations, progress_bar)[0]
