"""Rollout buffers that hold costs beside rewards, with advantages of their own.

They extend Stable-Baselines3's buffers and leave what those do with rewards as it is. They know
nothing of limits, of episodes' sums or of where costs come from.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictRolloutBuffer, RolloutBuffer
from stable_baselines3.common.type_aliases import TensorDict

Floats = NDArray[np.float32]

#: Largest ratio of `scale` to the standard deviation of a mini-batch's reward advantages.
_MAX_RATIO = 100.0


class CostSamples(NamedTuple):
    """A mini-batch of B steps: SB3's fields, which PPO reads by name, and two for the costs."""

    observations: torch.Tensor | TensorDict
    actions: torch.Tensor
    old_values: torch.Tensor
    old_log_prob: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor
    cost_advantages: torch.Tensor
    cost_returns: torch.Tensor


def gae(
    signals: Floats,
    values: Floats,
    ends: NDArray[np.bool_],
    end_values: Floats,
    last_values: Floats,
    gamma: float,
    gae_lambda: float,
) -> Floats:
    r"""Generalised advantages (Schulman et al., arXiv 1506.02438), for T steps of N environments.

    δ_t = c_t + γ · v_{t+1} - v_t and A_t = δ_t + γλ · A_{t+1}, where A_{t+1} is 0 if an episode
    ended with step t, and v_{t+1} is then `end_values[t]`.

    Args:
        signals: (T, N) rewards or costs.
        values: (T, N) what the critic expected at each step.
        ends: (T, N) whether the episode ended with the step.
        end_values: (T, N) the critic's value of the state in which a truncated episode stopped;
            0 where the episode terminated. Read only where `ends`.
        last_values: (N,) the critic's values after the last step.
        gamma: discount γ.
        gae_lambda: λ of the average over horizons.

    Returns:
        (T, N) advantages.
    """
    next_values = np.where(ends, end_values, np.concatenate([values[1:], last_values[None]]))
    deltas = signals + gamma * next_values - values
    advantages = np.zeros_like(values)
    following = np.zeros_like(last_values)
    for step in reversed(range(len(signals))):
        following = deltas[step] + gamma * gae_lambda * ~ends[step] * following
        advantages[step] = following
    return advantages


def lagrangian_advantages(
    advantages: torch.Tensor,
    cost_advantages: torch.Tensor,
    multiplier: float,
    scale: float,
    normalize: bool,
) -> torch.Tensor:
    """(B,) advantages of the Lagrangian: (A_r - λ · S · A_c) / (1 + λ), S the constant `scale`.

    A_c is centred and never divided by its own spread: λ would change its meaning whenever that
    changes. If `normalize`, A_r is standardised over the mini-batch as PPO does it, and A_c is
    divided by the same number, the standard deviation of A_r, for the same reason: otherwise the
    rewards would outgrow any λ while the policy narrows. Where rewards (hardly) differ, that
    division stops at `scale` / 100. The division by 1 + λ keeps the size of the policy's step
    about the same for every λ; it does not move the optimum. With λ = 0 what comes out is PPO's
    own advantage, bit for bit.
    """
    if len(advantages) > 1:
        cost_advantages = cost_advantages - cost_advantages.mean()
        if normalize:
            std = advantages.std()
            advantages = (advantages - advantages.mean()) / (std + 1e-8)
            cost_advantages = cost_advantages / torch.clamp(std, min=scale / _MAX_RATIO)
    return (advantages - multiplier * scale * cost_advantages) / (1.0 + multiplier)


class CostRolloutBuffer(RolloutBuffer):
    """SB3's rollout buffer, with costs, cost values, cost advantages and cost returns.

    `add_cost` belongs to the step that the next `add` completes. `get` yields mini-batches whose
    `advantages` are already those of the Lagrangian, so that PPO's own update can climb them.

    Args:
        *args: those of SB3's buffer.
        cost_gamma: discount of the costs.
        cost_gae_lambda: λ of the costs' advantages.
        **kwargs: those of SB3's buffer.

    Attributes:
        costs, cost_values, cost_end_values, cost_advantages, cost_returns: (T, N) float32;
            the last two, and the values, become (T * N, 1) with the rest of the buffer in `get`.
        cost_ends: (T, N) bool, whether an episode ended with the step.
        multiplier: λ that `get` mixes with.
        multiplier_scale: S that `get` mixes with.
        normalize_advantage: whether `get` standardises the rewards' advantages.
    """

    costs: Floats
    cost_values: Floats
    cost_end_values: Floats
    cost_advantages: Floats
    cost_returns: Floats
    cost_ends: NDArray[np.bool_]

    def __init__(
        self, *args: Any, cost_gamma: float = 1.0, cost_gae_lambda: float = 0.95, **kwargs: Any
    ) -> None:
        self.cost_gamma = cost_gamma
        self.cost_gae_lambda = cost_gae_lambda
        self.multiplier = 0.0
        self.multiplier_scale = 1.0
        self.normalize_advantage = True
        super().__init__(*args, **kwargs)

    def reset(self) -> None:
        """Empty the buffer, its cost arrays included."""
        shape = (self.buffer_size, self.n_envs)
        for name in ("costs", "cost_values", "cost_end_values", "cost_advantages", "cost_returns"):
            setattr(self, name, np.zeros(shape, np.float32))
        self.cost_ends = np.zeros(shape, np.bool_)
        super().reset()

    def add_cost(
        self,
        costs: NDArray[Any],
        values: NDArray[Any],
        ends: NDArray[np.bool_],
        end_values: NDArray[Any],
    ) -> None:
        """Store the costs of the current step.

        Args:
            costs: (N,) costs of the step.
            values: (N,) what the cost critic expected of the state before it.
            ends: (N,) whether an episode ended with it.
            end_values: (N,) the cost critic's value of the state in which a truncated episode
                stopped, 0 elsewhere.
        """
        self.costs[self.pos] = costs
        self.cost_values[self.pos] = values
        self.cost_ends[self.pos] = ends
        self.cost_end_values[self.pos] = end_values

    def compute_cost_returns_and_advantage(self, last_values: Floats) -> None:
        """Fill the advantages and the returns of a full buffer.

        Args:
            last_values: (N,) the cost critic's values after the last step.
        """
        self.cost_advantages = gae(
            self.costs,
            self.cost_values,
            self.cost_ends,
            self.cost_end_values,
            last_values,
            self.cost_gamma,
            self.cost_gae_lambda,
        )
        self.cost_returns = self.cost_advantages + self.cost_values

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Yield `CostSamples` in random order, `advantages` being those of the Lagrangian."""
        if not self.generator_ready:
            for name in ("cost_values", "cost_advantages", "cost_returns"):
                setattr(self, name, self.swap_and_flatten(getattr(self, name)))
        for samples in super().get(batch_size):
            mixed = lagrangian_advantages(
                samples.advantages,
                samples.cost_advantages,  # type: ignore[attr-defined]
                self.multiplier,
                self.multiplier_scale,
                self.normalize_advantage,
            )
            yield samples._replace(advantages=mixed)

    def cost_batches(
        self, batch_size: int, rng: np.random.Generator
    ) -> Generator[CostSamples, None, None]:
        """Yield each step once, as `get` does but in an order of `rng`, advantages unmixed.

        For after `get`, which brings the arrays into the shape that is sampled from.
        """
        order = rng.permutation(self.buffer_size * self.n_envs)
        for start in range(0, len(order), batch_size):
            yield self._get_samples(order[start : start + batch_size])

    def _get_samples(self, batch_inds: NDArray[Any], env: Any = None) -> Any:
        samples = super()._get_samples(batch_inds, env)
        return CostSamples(
            *samples,
            cost_advantages=self.to_torch(self.cost_advantages[batch_inds].flatten()),
            cost_returns=self.to_torch(self.cost_returns[batch_inds].flatten()),
        )


class DictCostRolloutBuffer(CostRolloutBuffer, DictRolloutBuffer):
    """`CostRolloutBuffer` for dictionary observations."""
