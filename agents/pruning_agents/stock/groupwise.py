"""Networks that read an observation group by group, with the same weights for every group.

The flat observation is a table with one row per group, followed by numbers about the whole network.
Reading it row by row makes a policy independent of how many groups there are and of their order:
what it learned on one network can be asked about another. Here are the encoder, its face as an SB3
features extractor, and an actor-critic policy for PPO and A2C; nothing of pruning but the layout.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from pruning_env.process.observations import GROUP_FEATURES


class GroupEncoder(nn.Module):
    """Embed each group of an observation, knowing the other groups through a pool.

    Each row, with the global numbers beside it, goes through one shared network; mean and maximum
    over the groups are the context that a second shared network sees beside each row's own
    embedding. So permuting the groups permutes the output, and no weight depends on their number.
    (Zaheer et al. 2017, "Deep Sets".)

    Args:
        observation_space: `Box` of shape (D,), the environment's flat observation.
        groups: L, number of groups.
        group_features: F, columns of the table.
        hidden: H, width of the embeddings.
        padded: whether the last number of a row says, by 1 or 0, if there is such a group, as
            `pruning_env.wrappers.PadGroups` writes it; it is counted in `group_features`. Absent
            groups have no part in the pool, and embeddings of 0. The weights are of the same shapes
            as for unpadded rows, and give the same.

    Raises:
        ValueError: if the observation is too short for a table of that size, or no vector.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        groups: int,
        group_features: int = len(GROUP_FEATURES),
        hidden: int = 32,
        padded: bool = False,
    ) -> None:
        super().__init__()
        table = groups * group_features
        shape = observation_space.shape
        if shape is None or len(shape) != 1 or shape[0] < table:
            raise ValueError(
                f"observation_space={observation_space} must be a flat Box with at least "
                f"{groups} groups · {group_features} group_features = {table} numbers"
            )
        self.groups, self.group_features, self.hidden = groups, group_features, hidden
        self.padded = padded
        inputs = group_features - padded + shape[0] - table
        self.rows = nn.Sequential(
            nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()
        )
        self.joint = nn.Sequential(nn.Linear(3 * hidden, hidden), nn.SiLU())

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Embeddings (N, L, H) of observations (N, D)."""
        size = self.groups * self.group_features
        table = observations[:, :size].reshape(-1, self.groups, self.group_features)
        overall = observations[:, None, size:].expand(-1, self.groups, -1)
        present = self.present(observations)
        if present is not None:
            table = table[:, :, :-1]
        rows = self.rows(torch.cat([table, overall], dim=2))
        context = pool(rows, present)[:, None].expand(-1, self.groups, -1)
        embeddings = self.joint(torch.cat([rows, context], dim=2))
        return embeddings if present is None else embeddings * present

    def present(self, observations: torch.Tensor) -> torch.Tensor | None:
        """(N, L, 1) of 0 and 1, which groups there are in (N, D); None where all are."""
        if not self.padded:
            return None
        size = self.groups * self.group_features
        rows = observations[:, :size].reshape(-1, self.groups, self.group_features)
        return (rows[:, :, -1:] > 0.5).to(observations.dtype)


def pool(embeddings: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
    """Mean and maximum over the groups: (N, 2 · H) of (N, L, H), whatever their order.

    Args:
        embeddings: (N, L, H).
        present: (N, L, 1) of 0 and 1, which of the groups count, at least one each; None: all.
    """
    if present is None:
        return torch.cat([embeddings.mean(dim=1), embeddings.amax(dim=1)], dim=1)
    mean = (embeddings * present).sum(dim=1) / present.sum(dim=1).clamp(min=1.0)
    largest = embeddings.masked_fill(present < 0.5, -torch.inf).amax(dim=1)
    # Without any group, as in an observation of zeros that only probes shapes, there is no maximum.
    return torch.cat([mean, largest.nan_to_num(neginf=0.0)], dim=1)


class GroupwiseExtractor(BaseFeaturesExtractor):
    """The encoder as an SB3 features extractor, for any algorithm and its stock policies.

    Its output is fixed to L, as stock action heads are: the embeddings of all groups and their
    pool, or with `pooled=True` the pool alone, whose size does not depend on L.

    Args:
        observation_space: flat observation of the environment.
        groups: L, number of groups.
        group_features: columns of the group table.
        hidden: H, width of the embeddings.
        pooled: whether to leave out the single groups.
        padded: as in `GroupEncoder`.
    """

    def __init__(
        self,
        observation_space: spaces.Box,
        groups: int,
        group_features: int = len(GROUP_FEATURES),
        hidden: int = 32,
        pooled: bool = False,
        padded: bool = False,
    ) -> None:
        super().__init__(observation_space, (2 if pooled else groups + 2) * hidden)
        self.encoder = GroupEncoder(observation_space, groups, group_features, hidden, padded)
        self.pooled = pooled

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Features (N, (L + 2) · H), or (N, 2 · H) if pooled, of observations (N, D)."""
        embeddings = self.encoder(observations)
        summary = pool(embeddings, self.encoder.present(observations))
        return summary if self.pooled else torch.cat([embeddings.flatten(1), summary], dim=1)


class _ActorAndCritic(nn.Module):
    """In the place of SB3's `MlpExtractor`: (N, L) mean actions, and the critic's (N, 2 · H)."""

    def __init__(self, observation_space: spaces.Space, groups: int, **keywords: Any) -> None:
        super().__init__()
        self.actor = GroupEncoder(observation_space, groups, **keywords)
        self.critic = GroupEncoder(observation_space, groups, **keywords)
        self.head = nn.Linear(self.actor.hidden, 1)
        self.latent_dim_pi = groups
        self.latent_dim_vf = 2 * self.critic.hidden

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.forward_actor(features), self.forward_critic(features)

    def forward_actor(self, features: torch.Tensor) -> torch.Tensor:
        means = self.head(self.actor(features))
        present = self.actor.present(features)
        return (means if present is None else means * present).squeeze(2)

    def forward_critic(self, features: torch.Tensor) -> torch.Tensor:
        return pool(self.critic(features), self.critic.present(features))


class GroupwiseActorCriticPolicy(ActorCriticPolicy):
    """Actor-critic policy whose weights serve any number of groups.

    The mean action of a group comes from its own embedding, so the actor is permutation-equivariant
    and the critic, which sees the pool, invariant. One standard deviation is shared by all groups.
    `PPO(GroupwiseActorCriticPolicy, env)`; `load_state_dict` takes the weights of a policy for
    another network, as long as both have as many budgets.

    Args:
        observation_space: flat observation of the environment.
        action_space: Box(-1, 1, (L,)).
        lr_schedule: learning rate.
        group_features: columns of the group table.
        hidden: width of the embeddings, of actor and critic each.
        padded: as in `GroupEncoder`. The mean actions of absent groups are 0. What is drawn for
            them moves nothing, so to learning it is noise without direction.
        **keywords: as in SB3's `ActorCriticPolicy`; `net_arch` has no effect.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        group_features: int = len(GROUP_FEATURES),
        hidden: int = 32,
        padded: bool = False,
        **keywords: Any,
    ) -> None:
        self.group_features, self.hidden, self.padded = group_features, hidden, padded
        super().__init__(observation_space, action_space, lr_schedule, **keywords)

    def _build_mlp_extractor(self) -> None:
        self.mlp_extractor = _ActorAndCritic(  # type: ignore[assignment]
            self.observation_space,
            int(self.action_space.shape[0]),  # type: ignore[index]
            group_features=self.group_features,
            hidden=self.hidden,
            padded=self.padded,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # SB3's action head and scales have one row per group; here the means are there already.
        self.action_net = nn.Identity()
        self.log_std = nn.Parameter(torch.full((1,), float(self.log_std_init)))
        head = self.mlp_extractor.head
        assert isinstance(head, nn.Linear)
        nn.init.orthogonal_(head.weight, gain=0.01)
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "group_features": self.group_features,
            "hidden": self.hidden,
            "padded": self.padded,
        }
