"""The policies of `RLPruner`: where a distribution over groups comes from, and how it improves.

`PruningPolicy` is what the algorithm needs; `DistributionPolicy` is the published one, a single
persistent distribution. Nothing here knows environments, rewards or how candidates are judged.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule

from pruning_agents.rl_pruner.candidates import Elite
from pruning_agents.search.distribution import (
    from_logits,
    normalise,
    perturb,
    representable,
    to_action,
    to_logits,
    width_proportional,
)

DEFAULT_NOISE_STD = {"adaptive": 1.2, "multiplicative": 1.0, "absolute": 0.04}
"""Of each kind of noise; the last is the published one, called "variance" there."""


_SAME_PROGRESS = 1e-5  # less than a channel's share of any network, more than rounding


class PruningPolicy(BasePolicy):
    """A policy that gives a distribution over groups for an observation, and noisy copies of it.

    Args:
        observation_space: space of the environment.
        action_space: Box(-1, 1, (L,)).
        lr_schedule: unused; every SB3 policy takes one.
        sizes: (L,) channels of each group.
        logit_scale: width of the environment's softmax.
        noise: kind of noise of a stochastic prediction, see `distribution.perturb`.
        noise_std: scale of that noise; of "adaptive" noise, its first scale.
        minimum_std: smallest scale of "adaptive" noise.
        rng: generator of stochastic predictions.
        progress: which entry of a flat observation is the episode's progress; None if none is.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule | None = None,
        *,
        sizes: NDArray[np.int64],
        logit_scale: float,
        noise: str = "multiplicative",
        noise_std: float = DEFAULT_NOISE_STD["multiplicative"],
        minimum_std: float = 0.1,
        rng: np.random.Generator | None = None,
        progress: int | None = None,
    ) -> None:
        super().__init__(observation_space, action_space)
        self.progress = progress
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.logit_scale = float(logit_scale)
        self.noise = noise
        self.noise_std = noise_std
        self.minimum_std = minimum_std
        self.rng = np.random.default_rng() if rng is None else rng

    @abstractmethod
    def shares(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L,) the distribution for one observation (D,)."""

    def settled(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L,) the distribution that is predicted; `shares` while a search has never restarted."""
        return self.shares(observation)

    @abstractmethod
    def spread(self, observation: NDArray[np.float32]) -> NDArray[np.float64] | float:
        """Scale of the noise for one observation, of all groups or (L,) one each."""

    @abstractmethod
    def follow(
        self,
        observation: NDArray[np.float32],
        elite: Elite,
        step_size: float,
        clip: float | None,
    ) -> None:
        """Move the distribution for an observation (D,) towards an elite.

        Args:
            observation: of the state in which the elite was judged.
            elite: what to follow.
            step_size: in [0, 1], how far.
            clip: largest relative change of a share; None for any. A policy may not need it.
        """

    def begin(self, observation: NDArray[np.float32], probabilities: NDArray[np.float64]) -> None:
        """Go to a distribution (L,) that a search is to begin around; its noise stays.

        Args:
            observation: of the state in which it was judged.
            probabilities: where to go.
        """
        self.follow(observation, Elite(probabilities[None], np.ones(1)), 1.0, None)

    @abstractmethod
    def widen(self, least: float) -> None:
        """Raise the scales of "adaptive" noise to at least `least`, to search afresh."""

    @abstractmethod
    def restart(self, rng: np.random.Generator) -> None:
        """Forget the distribution and its noise, and begin around one drawn at random.

        Args:
            rng: what to draw from.
        """

    @abstractmethod
    def reset(self) -> None:
        """Go back to the width-proportional distribution, with the first noise."""

    def play(self, starts: Sequence[float], actions: Sequence[NDArray[np.float32]]) -> None:
        """Learn of the best episode so far; a policy may repeat it where nothing else is wanted.

        Args:
            starts: (T,) the episode's progress from which each action was taken, rising.
            actions: T actions (L,).
        """

    def imitate(
        self,
        observations: Sequence[NDArray[np.float32]],
        actions: Sequence[NDArray[np.float32]],
    ) -> None:
        """Learn from a whole episode that was the best so far; a policy may do so.

        Args:
            observations: T of them, each (D,).
            actions: T actions (L,), what was done there.
        """

    def sample(
        self, observation: NDArray[np.float32], rng: np.random.Generator
    ) -> NDArray[np.float64]:
        """(L,) a noisy copy of the distribution, one that an action can express."""
        noisy = perturb(self.shares(observation), self.noise, self.spread(observation), rng)
        return representable(noisy, self.sizes, self.logit_scale)

    def forward(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        """(N, L) actions for a batch of N observations."""
        return self._predict(observation, deterministic)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        batch = next(iter(observation.values())) if isinstance(observation, dict) else observation
        actions = [
            to_action(
                self.settled(row) if deterministic else self.sample(row, self.rng),
                self.sizes,
                self.logit_scale,
            )
            for row in batch.cpu().numpy()
        ]
        return torch.from_numpy(np.stack(actions))

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "sizes": self.sizes,
            "logit_scale": self.logit_scale,
            "noise": self.noise,
            "noise_std": self.noise_std,
            "minimum_std": self.minimum_std,
            "progress": self.progress,
        }


class DistributionPolicy(PruningPolicy):
    """One distribution over groups, whatever the observation says; starts width-proportional.

    It follows an elite of one in the published way, p <- p + step_size · (a* - p), and a larger one
    in log space, where shares of any size count alike: the logits go to the elite's weighted mean,
    and the scale of "adaptive" noise to its weighted standard deviation, both by `step_size`.

    What it predicts deterministically is not the distribution, which is a mean of good ones and
    need not be good itself, but the best episode so far, action by action: the way to the
    incumbent. The observation says only how far the episode has come. Before there is one, and
    where the observation has no progress, it is the distribution; after a restart, that of the
    search in which the best episode was.

    Arguments as in `PruningPolicy`.
    """

    probabilities: torch.Tensor
    stds: torch.Tensor
    kept: torch.Tensor
    leading: torch.Tensor

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        # Buffers, because they are saved with the policy and no gradient ever reaches them.
        self.register_buffer("probabilities", torch.from_numpy(width_proportional(self.sizes)))
        stds = torch.full(self.sizes.shape, float(self.noise_std), dtype=torch.float64)
        self.register_buffer("stds", stds)
        self.register_buffer("kept", self.probabilities.clone())
        self.register_buffer("leading", torch.tensor(True))
        self._path: tuple[torch.Tensor, torch.Tensor] | None = None

    def play(self, starts: Sequence[float], actions: Sequence[NDArray[np.float32]]) -> None:
        """Predict this episode from now on."""
        self._path = (
            torch.tensor(starts, dtype=torch.float32),
            torch.from_numpy(np.stack(actions).astype(np.float32)),
        )

    def get_extra_state(self) -> dict[str, torch.Tensor]:
        """The episode, whose length no buffer could have; saved with the policy."""
        return (
            {} if self._path is None else dict(zip(("starts", "actions"), self._path, strict=True))
        )

    def set_extra_state(self, state: dict[str, torch.Tensor]) -> None:
        """What `get_extra_state` gave."""
        self._path = (state["starts"], state["actions"]) if state else None

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> torch.Tensor:
        if not deterministic or self._path is None or self.progress is None:
            return super()._predict(observation, deterministic)
        assert isinstance(observation, torch.Tensor)
        starts, actions = self._path
        reached = observation[:, self.progress].cpu().contiguous() + _SAME_PROGRESS
        return actions[(torch.searchsorted(starts, reached, right=True) - 1).clamp(min=0)]

    @property
    def distribution(self) -> NDArray[np.float64]:
        """(L,) the current distribution, a copy."""
        return self.probabilities.cpu().numpy().astype(np.float64)

    @distribution.setter
    def distribution(self, probabilities: NDArray[np.float64]) -> None:
        self.probabilities.copy_(torch.from_numpy(normalise(probabilities)))

    def shares(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L,) the current distribution."""
        return self.distribution

    def imitate(
        self,
        observations: Sequence[NDArray[np.float32]],
        actions: Sequence[NDArray[np.float32]],
    ) -> None:
        """From now on the distribution of this search is the one to predict."""
        self.leading.fill_(True)

    def settled(self, observation: NDArray[np.float32]) -> NDArray[np.float64]:
        """(L,) the distribution of the search in which the best episode was."""
        if self.leading:
            return self.distribution
        return self.kept.cpu().numpy().astype(np.float64)

    def spread(self, observation: NDArray[np.float32]) -> NDArray[np.float64] | float:
        """(L,) the scale of adaptive noise, or the constant scale of the others."""
        if self.noise != "adaptive":
            return self.noise_std
        return self.stds.cpu().numpy().astype(np.float64)

    def widen(self, least: float) -> None:
        """Raise the scales of adaptive noise to at least `least`."""
        self.stds.clamp_(min=least)

    def restart(self, rng: np.random.Generator) -> None:
        """Go to a noisy copy of the width-proportional distribution, with the first noise."""
        if self.leading:
            self.kept.copy_(self.probabilities)
            self.leading.fill_(False)
        self.distribution = perturb(width_proportional(self.sizes), self.noise, self.noise_std, rng)
        self.stds.fill_(self.noise_std)

    def reset(self) -> None:
        """Go back to the width-proportional distribution, with the first noise."""
        self.distribution = width_proportional(self.sizes)
        self.stds.fill_(self.noise_std)

    def follow(
        self,
        observation: NDArray[np.float32],
        elite: Elite,
        step_size: float,
        clip: float | None,
    ) -> None:
        """Move towards an elite, no share changing by more than the clip."""
        p = self.distribution
        if len(elite.weights) == 1:
            target = p + step_size * (elite.probabilities[0] - p)
        else:
            logits = to_logits(elite.probabilities, self.sizes)
            mean = elite.weights @ logits
            std = np.sqrt(elite.weights @ (logits - mean) ** 2)
            moved = (1.0 - step_size) * to_logits(p, self.sizes) + step_size * mean
            target = from_logits(moved, self.sizes)
            stds = (1.0 - step_size) * self.stds.cpu().numpy() + step_size * std
            self.stds.copy_(torch.from_numpy(np.maximum(stds, self.minimum_std)))
        ratio = target / p
        if clip is not None:
            ratio = np.clip(ratio, 1.0 - clip, 1.0 + clip)
        self.distribution = p * ratio
