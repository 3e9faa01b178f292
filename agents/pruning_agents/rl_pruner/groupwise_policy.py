"""The observation-conditioned policy of `RLPruner`: a network says what to prune in this state.

Where `DistributionPolicy` keeps one distribution for all states, this one keeps weights, shared by
all groups and all states, so that what was found in one state or for one group speaks for others
that look alike, and the weights fit a network with another number of groups.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn

from pruning_agents.rl_pruner.candidates import Elite
from pruning_agents.rl_pruner.distribution_policy import PruningPolicy
from pruning_agents.search.distribution import (
    from_logits,
    perturb,
    to_logits,
    width_proportional,
)
from pruning_agents.stock.groupwise import GroupEncoder
from pruning_env.process.observations import GROUP_FEATURES

_MOST_SPREAD = 2.0  # times the first scale of the noise
_IMITATION_STEPS = 500  # of Adam; a handful of states is then met to within some 0.01


class GroupwisePolicy(PruningPolicy):
    """A distribution, and the scale of its noise, from the observation, group by group.

    The network starts with logits of exactly 0, which is the width-proportional distribution. To
    follow an elite, the target for the state is what `DistributionPolicy` would move to: logits and
    log scales go `step_size` of the way to the elite's weighted mean and standard deviation. The
    network is then fitted to the latest targets of the last `memory` states by least squares; so
    following in one state does not forget the others. The clip is not needed and ignored.

    What it predicts deterministically is another network of the same kind. A mean of good
    distributions need not be good itself, so that one is fitted by least squares to the actions of
    the best episode so far, state by state (self-imitation: Oh et al. 2018). Before there is one,
    the search's network predicts.

    `network.state_dict()` has no L in it and can be loaded into the policy of another environment
    with as many budgets.

    Args:
        observation_space: flat observation of the environment, (D,).
        action_space: Box(-1, 1, (L,)).
        lr_schedule: unused; every SB3 policy takes one.
        group_features: columns of the group table.
        hidden: width of the embeddings.
        gradient_steps: Adam steps per update.
        learning_rate: of Adam.
        memory: states whose targets are kept.
        **keywords: as in `PruningPolicy`.
    """

    least: torch.Tensor
    taught: torch.Tensor
    used: torch.Tensor
    observations: torch.Tensor
    targets: torch.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        *,
        group_features: int = len(GROUP_FEATURES),
        hidden: int = 32,
        gradient_steps: int = 100,
        learning_rate: float = 0.01,
        memory: int = 32,
        **keywords: Any,
    ) -> None:
        super().__init__(observation_space, action_space, lr_schedule, **keywords)
        self.settings = {
            "group_features": group_features,
            "hidden": hidden,
            "gradient_steps": gradient_steps,
            "learning_rate": learning_rate,
            "memory": memory,
        }
        self.gradient_steps, self.learning_rate = gradient_steps, learning_rate
        groups = self.sizes.size
        # From a copy of the generator, so that a loaded agent goes on where the saved one was.
        seed = int(copy.deepcopy(self.rng).integers(2**31))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network, self.player = (
                nn.Sequential(
                    GroupEncoder(observation_space, groups, group_features, hidden),
                    nn.Linear(hidden, outputs),
                )
                for outputs in (2, 1)
            )
        head = self.network[1]
        assert isinstance(head, nn.Linear) and observation_space.shape is not None
        nn.init.zeros_(head.weight)
        with torch.no_grad():
            head.bias.copy_(torch.tensor([0.0, np.log(max(self.noise_std, self.minimum_std))]))
        # Buffers, because they are saved with the policy.
        self.register_buffer("least", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("taught", torch.tensor(False))
        self.register_buffer("used", torch.tensor(0))
        self.register_buffer("observations", torch.zeros(memory, *observation_space.shape))
        self.register_buffer("targets", torch.zeros(memory, groups, 2))

    def _outputs(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L, 2) logits and log scales for one observation."""
        with torch.no_grad():
            batch = torch.as_tensor(observation, dtype=torch.float32, device=self.device)[None]
            return self.network(batch)[0].cpu().numpy().astype(np.float64)

    def shares(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L,) the distribution for one observation (D,)."""
        return from_logits(self._outputs(observation)[:, 0], self.sizes)

    def spread(self, observation: NDArray[np.float32]) -> NDArray[np.float64] | float:
        """(L,) the scale of adaptive noise, or the constant scale of the others."""
        if self.noise != "adaptive":
            return self.noise_std
        least = max(self.minimum_std, float(self.least))
        # In a state unlike those it was fitted to, a network may say anything.
        most = max(least, _MOST_SPREAD * self.noise_std)
        return np.exp(np.clip(self._outputs(observation)[:, 1], np.log(least), np.log(most)))

    def widen(self, least: float) -> None:
        """Raise the scales of adaptive noise to at least `least`; updates lower that again."""
        self.least.fill_(least)

    def restart(self, rng: np.random.Generator) -> None:
        """Search around what the network says of targets drawn at random, with the first noise."""
        self._aim(perturb(width_proportional(self.sizes), self.noise, self.noise_std, rng))

    def reset(self) -> None:
        """Go back to the same share of every group, with the first noise."""
        self._aim(width_proportional(self.sizes))

    def _aim(self, shares: NDArray[np.float64]) -> None:
        """Let all targets be `shares` (L,), and fit the network to them."""
        self.least.fill_(self.noise_std)
        count = min(int(self.used), len(self.targets))
        if count == 0:
            return
        target = np.stack(
            [
                to_logits(shares, self.sizes),
                np.full(self.sizes.shape, np.log(max(self.noise_std, self.minimum_std))),
            ],
            axis=1,
        )
        self.targets[:count] = torch.as_tensor(target, dtype=torch.float32, device=self.device)
        self._fit()

    def imitate(
        self,
        observations: Sequence[NDArray[np.float32]],
        actions: Sequence[NDArray[np.float32]],
    ) -> None:
        """Fit the network that predicts to an episode."""
        where, what = (
            torch.as_tensor(np.stack(each), dtype=torch.float32, device=self.device)
            for each in (observations, actions)
        )
        _regress(
            self.player, where, what[..., None], _IMITATION_STEPS, self.learning_rate, decay=True
        )
        self.taught.fill_(True)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        if not deterministic or not self.taught:
            return super()._predict(observation, deterministic)
        assert isinstance(observation, torch.Tensor)
        return self.player(observation.float()).squeeze(2).clamp(-1.0, 1.0)

    def follow(
        self,
        observation: NDArray[np.float32],
        elite: Elite,
        step_size: float,
        clip: float | None,
    ) -> None:
        """Fit the network to targets that are `step_size` of the way to the elite."""
        logits = to_logits(elite.probabilities, self.sizes)
        mean = elite.weights @ logits
        std = np.sqrt(elite.weights @ (logits - mean) ** 2)
        spread = np.broadcast_to(self.spread(observation), self.sizes.shape)
        if len(elite.weights) == 1:
            std = spread  # one alone says nothing about it
        before = np.stack([to_logits(self.shares(observation), self.sizes), spread], axis=1)
        target = (1.0 - step_size) * before + step_size * np.stack([mean, std], axis=1)
        target[:, 1] = np.log(np.maximum(target[:, 1], self.minimum_std))
        self.least.mul_(1.0 - step_size)
        self._keep(observation, target)
        self._fit()

    def begin(self, observation: NDArray[np.float32], probabilities: NDArray[np.float64]) -> None:
        """Fit the network closely to a distribution (L,); its noise stays."""
        scales = np.broadcast_to(self.spread(observation), self.sizes.shape)
        target = np.stack([to_logits(probabilities, self.sizes), np.log(scales)], axis=1)
        self._keep(observation, target)
        self._fit(_IMITATION_STEPS, decay=True)

    def _keep(self, observation: NDArray[np.float32], target: NDArray[np.float64]) -> None:
        """Remember the target of a state in the place of its last one, or of the oldest state's."""
        seen = torch.as_tensor(observation, dtype=torch.float32, device=self.device)
        size, used = len(self.targets), int(self.used)
        same = (self.observations[: min(used, size)] == seen).all(dim=1).nonzero()
        if len(same):
            slot = int(same[0])
        else:
            slot = used % size
            self.used += 1
        self.observations[slot] = seen
        self.targets[slot] = torch.as_tensor(target, dtype=torch.float32, device=self.device)

    def _fit(self, steps: int | None = None, decay: bool = False) -> None:
        count = min(int(self.used), len(self.targets))
        observations, targets = self.observations[:count], self.targets[:count]
        steps = self.gradient_steps if steps is None else steps
        _regress(self.network, observations, targets, steps, self.learning_rate, decay)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), **self.settings}


def _regress(
    network: nn.Module,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    steps: int,
    learning_rate: float,
    decay: bool = False,
) -> None:
    """Fit a network by least squares; with `decay` the learning rate falls to 0, to come close."""
    # A fresh optimiser: the targets have moved, and what it had learned of the old ones with them.
    # It also leaves nothing that would have to be saved.
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate)
    for step in range(steps):
        if decay:
            optimiser.param_groups[0]["lr"] = learning_rate * (1.0 - step / steps)
        loss = (network(inputs) - targets).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
