"""A critic of costs: a value network with parameters, an optimiser and an initialisation apart.

It is built like the value half of a policy, and shares nothing with it. It knows nothing of
rewards, of the multiplier or of how costs are measured.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3.common.policies import ActorCriticPolicy, BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from torch import nn


class CostCritic(BaseModel):
    """V_c: observations to expected costs, of the architecture of a policy's value network.

    Args:
        policy: whose features extractor, value network, activation, initialisation and optimiser
            are imitated; nothing of it is kept.
        lr_schedule: its value at 1 is the optimiser's first learning rate.
        seed: of the initial weights. They are drawn in a fork of torch's generator, so that
            building a critic leaves the global stream where it was.
    """

    features_extractor: BaseFeaturesExtractor
    optimizer: torch.optim.Optimizer

    def __init__(self, policy: ActorCriticPolicy, lr_schedule: Schedule, seed: int) -> None:
        super().__init__(
            policy.observation_space,
            policy.action_space,
            features_extractor_class=policy.features_extractor_class,
            features_extractor_kwargs=policy.features_extractor_kwargs,
            normalize_images=policy.normalize_images,
            optimizer_class=policy.optimizer_class,
            optimizer_kwargs=policy.optimizer_kwargs,
        )
        arch = policy.net_arch["vf"] if isinstance(policy.net_arch, dict) else policy.net_arch
        # No device is forked and only the CPU generator is seeded: weights are drawn on the CPU.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.features_extractor = extractor = self.make_features_extractor()
            *hidden, last = create_mlp(extractor.features_dim, 1, arch, policy.activation_fn)
            self.hidden, self.value_net = nn.Sequential(*hidden), last
            if policy.ortho_init:
                for module, init_gain in (
                    (self.features_extractor, np.sqrt(2)),
                    (self.hidden, np.sqrt(2)),
                    (self.value_net, 1.0),
                ):
                    for part in module.modules():
                        ActorCriticPolicy.init_weights(part, init_gain)
        self.optimizer = self.optimizer_class(
            self.parameters(),
            lr=lr_schedule(1),  # type: ignore[call-arg]
            **self.optimizer_kwargs,
        )

    def forward(self, observations: PyTorchObs) -> torch.Tensor:
        """(B,) expected costs for a batch of B observations."""
        features = self.extract_features(observations, self.features_extractor)
        return self.value_net(self.hidden(features)).flatten()

    @torch.no_grad()
    def values(self, observations: PyTorchObs) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(B,) the same as numbers, without gradients."""
        return self(observations).cpu().numpy()
