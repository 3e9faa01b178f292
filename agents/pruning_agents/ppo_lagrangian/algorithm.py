"""PPOLagrangian: Stable-Baselines3's PPO under a limit on the cost of an episode.

A constrained Markov decision process is solved by gradient ascent on the policy and on the price
of its constraint at once. The update of the policy is PPO's own; what differs is the advantage it
is given, and the cost critic and the multiplier beside it. Knows nothing of pruning: any
environment with `info["cost"]` will do.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback, ConvertCallback
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.utils import explained_variance, safe_mean, update_learning_rate
from torch.nn import functional as F

from pruning_agents.ppo_lagrangian.cost_buffer import CostRolloutBuffer, DictCostRolloutBuffer
from pruning_agents.ppo_lagrangian.cost_collector import CostCollector, EpisodeSums
from pruning_agents.ppo_lagrangian.cost_critic import CostCritic
from pruning_agents.ppo_lagrangian.multiplier import Multiplier

SelfPPOLagrangian = TypeVar("SelfPPOLagrangian", bound="PPOLagrangian")

#: Updates in a row at the cap of the multiplier, the limit still violated, that are called
#: infeasible. One may be the proportional term's answer to a policy that has yet to learn.
_PATIENCE = 5


@dataclass(frozen=True)
class RolloutRecord:
    """One rollout, as a figure of λ, cost and reward over time needs it.

    Attributes:
        timesteps: steps of all environments up to its end.
        multiplier: λ after its update.
        price: λ in the units of the rewards per unit of cost, see `PPOLagrangian.price`.
        cost: mean cost of the episodes that ended in it; NaN if none did.
        reward: their mean reward, raw; NaN if there were none.
        episodes: how many there were.
        status: what `PPOLagrangian.status` said.
    """

    timesteps: int
    multiplier: float
    price: float
    cost: float
    reward: float
    episodes: int
    status: str


class PPOLagrangian(PPO):
    r"""Maximise the expected reward subject to J_c ≤ d, J_c the expected cost of an episode.

    Once per rollout, in this order:

    1. J_c is the mean raw, undiscounted cost, the sum of `info["cost"]`, of the episodes that ended
       in this rollout, truncated ones included. The multiplier λ ≥ 0 is moved by the relative
       violation Δ = J_c / d - 1 (see `multiplier.Multiplier`). Without such an episode it stays.
    2. PPO's update of the policy and the reward critic, on (A_r - λ · S · A_c) / (1 + λ), in which
       λ is a constant, and S a constant of the whole run (`multiplier_scale`).
    3. The cost critic is fitted to the cost returns, with an optimiser of its own, by as many
       mini-batches, drawn from a stream of its own.

    Both critics bootstrap where an episode is truncated, and neither where it terminates. Costs are
    divided by d before they reach critic and advantages: a task whose costs and limit are both
    multiplied by some number trains the same agent. With λ held at 0 (`multiplier_lr=0`,
    `controller="lagrangian"`) it is PPO, bit for bit under a seed.

    What λ means. It is dimensionless: S is the standard deviation of A_r in the first rollout in
    which an episode ends, so λ = 1 prices a whole limit at what rewards scatter by at first, and
    the gains suit rewards of any size. Rollouts before it may hold no reward, where episodes are
    longer than rollouts and pay at their end, and A_r there is nothing but the critic's noise.
    PPO's standardisation of mini-batches divides A_r - λ · S · A_c as a whole, by the standard
    deviation of A_r; were A_r alone divided, then λ would have to grow without bounds while the
    policy narrows. A_c is centred and never divided by its own spread. `price` is the Lagrange
    multiplier of the problem as it stands, λ · S / d: the reward that one more unit of cost would
    buy. With `normalize_advantage=False`, S = 1. The controller moves `price` with every rollout,
    and a policy follows late: a mean over the last part of a long `history` is near the problem's
    multiplier, while a run of a few dozen rollouts ends a fifth or so off.

    Defaults. What is PPO's keeps PPO's default, `gamma=0.99` included; for short episodes with
    everything at their end, as in pruning, `gamma=1.0` is right. `cost_gamma=1.0`, because the
    limit is on the undiscounted cost of an episode, and a critic that discounts it would judge late
    costs too leniently; take less only if episodes are endless. `cost_gae_lambda=0.95` is PPO's, so
    that both advantages look equally far ahead. `cost_limit=1.0` is for costs that are a usage
    divided by its limit. Gains: a violation by 100 % raises the integral by 0.2 per rollout, so
    that some hundred rollouts, not thousands, are enough. It pays to have several whole episodes
    in each rollout.

    Args:
        policy: as for PPO.
        env: environment, or several, that report a finite `info["cost"]` at every step.
        cost_limit: d > 0, the limit on an episode's cost; infinite for none.
        cost_gamma: discount of the cost returns, in [0, 1].
        cost_gae_lambda: λ of the cost advantages, in [0, 1].
        controller: "pi", or "lagrangian" for plain projected gradient ascent.
        multiplier_init: λ before the first update.
        multiplier_lr: step of the gradient ascent; the integral gain.
        multiplier_gain: proportional gain of "pi".
        multiplier_smoothing: weight of the past in its moving average of Δ, in [0, 1).
        max_multiplier: cap of λ. λ at its cap and cost over the limit is called infeasible.
        cost_tolerance: relative violation of the mean cost that still counts as feasible in
            `status`; it does not change what is learned.
        rollout_buffer_class: a subclass of `CostRolloutBuffer`, or None to choose one.
        _init_setup_model: whether to build the networks at once; `load` says no.
        **ppo_arguments: the other arguments of PPO, by name.

    Attributes:
        multiplier: the multiplier and its state; `multiplier.value` is λ.
        multiplier_scale: S; None before the first rollout in which an episode ends, and in which
            A_r are not all equal.
        cost_critic: V_c.
        history: one `RolloutRecord` per rollout since the timesteps were last set to 0.
        ep_cost_buffer: costs of the latest `stats_window_size` episodes.

    Raises:
        ValueError: naming the argument that is out of range; in `learn`, at the first step whose
            info has no cost.
    """

    rollout_buffer: CostRolloutBuffer
    rollout_buffer_class: type[CostRolloutBuffer] | None  # type: ignore[assignment]
    cost_critic: CostCritic

    def __init__(
        self,
        policy: str | type[ActorCriticPolicy],
        env: GymEnv | str,
        *,
        cost_limit: float = 1.0,
        cost_gamma: float = 1.0,
        cost_gae_lambda: float = 0.95,
        controller: str = "pi",
        multiplier_init: float = 0.0,
        multiplier_lr: float = 0.2,
        multiplier_gain: float = 2.0,
        multiplier_smoothing: float = 0.5,
        max_multiplier: float = 100.0,
        cost_tolerance: float = 0.05,
        rollout_buffer_class: type[CostRolloutBuffer] | None = None,
        _init_setup_model: bool = True,
        **ppo_arguments: Any,
    ) -> None:
        if not cost_limit > 0.0:
            raise ValueError(f"cost_limit={cost_limit} is not allowed; give a number above 0")
        for name, value in (("cost_gamma", cost_gamma), ("cost_gae_lambda", cost_gae_lambda)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{name}={value} is not allowed; give a number in [0, 1]")
        if not cost_tolerance >= 0.0:
            raise ValueError(f"cost_tolerance={cost_tolerance} is not allowed; give at least 0")
        if rollout_buffer_class and not issubclass(rollout_buffer_class, CostRolloutBuffer):
            raise ValueError(
                f"rollout_buffer_class={rollout_buffer_class.__name__} is not allowed; "
                f"give a subclass of CostRolloutBuffer"
            )
        super().__init__(
            policy,
            env,
            rollout_buffer_class=rollout_buffer_class,
            _init_setup_model=False,
            **ppo_arguments,
        )
        self.cost_limit = float(cost_limit)
        self.cost_gamma = cost_gamma
        self.cost_gae_lambda = cost_gae_lambda
        self.cost_tolerance = cost_tolerance
        # All that learning changes, networks apart, is made here and not in _setup_model: a loaded
        # agent goes on with what it was saved with.
        self.multiplier = Multiplier(
            controller,
            multiplier_init,
            multiplier_lr,
            multiplier_gain,
            multiplier_smoothing,
            max_multiplier,
        )
        self.history: list[RolloutRecord] = []
        self.ep_cost_buffer: deque[float] = deque(maxlen=self._stats_window_size)
        self.multiplier_scale: float | None = None
        self._cost_rng = np.random.default_rng(self.seed)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        if self.rollout_buffer_class is None:
            dictionary = isinstance(self.observation_space, spaces.Dict)
            self.rollout_buffer_class = DictCostRolloutBuffer if dictionary else CostRolloutBuffer
        self.rollout_buffer_kwargs = {
            **self.rollout_buffer_kwargs,
            "cost_gamma": self.cost_gamma,
            "cost_gae_lambda": self.cost_gae_lambda,
        }
        super()._setup_model()
        seed = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
        self.cost_critic = CostCritic(self.policy, self.lr_schedule, seed).to(self.device)

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts, variables = super()._get_torch_save_params()
        return [*state_dicts, "cost_critic", "cost_critic.optimizer"], variables

    @property
    def status(self) -> str:
        """What the costs say of the constraint.

        - "unknown": no episode has ended yet;
        - "feasible": the mean cost of the latest episodes (`stats_window_size`) is not above the
          limit by more than `cost_tolerance`;
        - "infeasible": it is, and λ has been at its cap for 5 updates in a row, the limit violated
          in each: no more force can be applied, so the limit is out of reach, or the cap too low;
        - "violated": it is, and λ has room to rise.
        """
        if not self.ep_cost_buffer:
            return "unknown"
        if np.mean(self.ep_cost_buffer) <= self.cost_limit * (1.0 + self.cost_tolerance):
            return "feasible"
        return "infeasible" if self.multiplier.saturated >= _PATIENCE else "violated"

    @property
    def feasible(self) -> bool:
        """Whether `status` is "feasible"."""
        return self.status == "feasible"

    @property
    def price(self) -> float:
        """Reward per unit of cost that λ stands for: λ · S / d.

        In the units of the rewards that the agent sees: normalised ones if `VecNormalize`
        normalises them.
        """
        return self.multiplier.value * (self.multiplier_scale or 1.0) / self.cost_limit

    def note_costs(
        self, costs: NDArray[Any], rewards: NDArray[Any], ends: NDArray[np.bool_]
    ) -> None:
        """Account for one step of all environments: raw costs and rewards, (N,) each."""
        self.ep_cost_buffer.extend(self._episodes.add(costs, rewards, ends))

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        # SB3 resets the environments under this condition.
        if reset_num_timesteps or self._last_obs is None:
            self._episodes = EpisodeSums(self.n_envs)
        if reset_num_timesteps:
            self.history = []
            self.ep_cost_buffer.clear()
        collector = CostCollector(
            self.cost_critic, self.rollout_buffer, self.cost_limit, self.note_costs
        )
        callbacks: list[BaseCallback] = [collector, *_as_list(callback)]
        return super()._setup_learn(
            total_timesteps, callbacks, reset_num_timesteps, tb_log_name, progress_bar
        )

    def learn(
        self: SelfPPOLagrangian,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str = "PPOLagrangian",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfPPOLagrangian:
        """As PPO's; `reset_num_timesteps` empties `history`, and leaves λ as it is."""
        return super().learn(
            total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar
        )

    def train(self) -> None:
        """Update the multiplier, then the policy and the reward critic, then the cost critic."""
        buffer, finished = self.rollout_buffer, self._episodes.take()
        cost, reward = finished.mean(axis=0) if len(finished) else (math.nan, math.nan)
        if len(finished):
            self.multiplier.update(float(cost) / self.cost_limit - 1.0)
        if self.multiplier_scale is None and len(finished):
            self._set_scale(float(buffer.advantages.std()))
        buffer.multiplier = self.multiplier.value
        buffer.multiplier_scale = self.multiplier_scale or 1.0
        buffer.normalize_advantage = self.normalize_advantage
        self._train_policy()
        loss = self._train_cost_critic()

        self.history.append(
            RolloutRecord(
                timesteps=self.num_timesteps,
                multiplier=self.multiplier.value,
                price=self.price,
                cost=float(cost),
                reward=float(reward),
                episodes=len(finished),
                status=self.status,
            )
        )
        if len(finished):
            self.logger.record("train/cost", float(cost))
        self.logger.record("train/multiplier", self.multiplier.value)
        self.logger.record("train/multiplier_integral", self.multiplier.integral)
        self.logger.record("train/price", self.price)
        self.logger.record("train/cost_loss", loss)
        self.logger.record(
            "train/cost_explained_variance",
            explained_variance(buffer.cost_values.flatten(), buffer.cost_returns.flatten()),
        )
        self.logger.record("train/feasible", float(self.feasible))
        self.logger.record("train/infeasible", float(self.status == "infeasible"))

    def _set_scale(self, spread: float) -> None:
        """Fix S, given the standard deviation of A_r in a rollout that held an episode's end."""
        if spread > 0.0:
            self.multiplier_scale = spread if self.normalize_advantage else 1.0

    def _train_policy(self) -> None:
        """PPO's update, on the advantages that the buffer has mixed."""
        # The buffer standardises the rewards' part, as PPO would; the mixture is not to be
        # standardised again.
        normalize, self.normalize_advantage = self.normalize_advantage, False
        try:
            super().train()
        finally:
            self.normalize_advantage = normalize

    def _train_cost_critic(self) -> float:
        """Regress the cost critic on the cost returns; the mean loss."""
        critic, losses = self.cost_critic, []
        critic.set_training_mode(True)
        update_learning_rate(critic.optimizer, self.lr_schedule(self._current_progress_remaining))
        for _ in range(self.n_epochs):
            for batch in self.rollout_buffer.cost_batches(self.batch_size, self._cost_rng):
                loss = F.mse_loss(critic(batch.observations), batch.cost_returns)
                critic.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(critic.parameters(), self.max_grad_norm)
                critic.optimizer.step()
                losses.append(loss.item())
        return float(np.mean(losses))

    def dump_logs(self, iteration: int = 0) -> None:
        """Write SB3's log, and the mean cost of the latest episodes beside their mean reward."""
        if self.ep_cost_buffer:
            self.logger.record("rollout/ep_cost_mean", safe_mean(self.ep_cost_buffer))
        super().dump_logs(iteration)


def _as_list(callback: MaybeCallback | Callable[..., bool]) -> list[BaseCallback]:
    """All the forms of callbacks that SB3 allows, as one."""
    if callback is None:
        return []
    if isinstance(callback, list):
        return callback
    return [callback if isinstance(callback, BaseCallback) else ConvertCallback(callback)]
