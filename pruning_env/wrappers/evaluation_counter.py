"""`EvaluationCounter`: counts evaluations in `info`, and truncates when they are spent.

Reads the environment's own count; knows nothing of what an evaluation is.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym

from pruning_env.arguments import check_count

__all__ = ["EvaluationCounter"]


class EvaluationCounter(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """`info["evaluations"]` counts pruned networks judged since the wrapper was made.

    Networks are what a search pays for, not steps: one that was judged before is free, and with
    `reward="final"` only an episode's last is judged. Forks of the environment and other copies
    that share its count are in it too.

    With a limit, the step that reaches it is truncated, and so is every step after that, whatever
    episode it is in: nothing is refused, because a training loop has to come to its own end. A step
    judges one network at most, so a search that stops there has spent the limit exactly.

    Args:
        env: `CNNPrune-v0` or `CNNPruneTabular-v0`, wrapped or not.
        limit: evaluations after which steps are truncated; None: never.

    Attributes:
        limit: as given.

    Raises:
        ValueError: the environment does not count evaluations, or the limit is below 1.
    """

    def __init__(self, env: gym.Env[Any, Any], limit: int | None = None) -> None:
        gym.utils.RecordConstructorArgs.__init__(self, limit=limit)
        super().__init__(env)
        if not hasattr(env.unwrapped, "evaluations"):
            raise ValueError(
                f"env={env} is not allowed; give CNNPrune-v0 or CNNPruneTabular-v0, which count "
                "their evaluations"
            )
        self.limit = None if limit is None else check_count("limit", limit)
        self._before = self._counted()

    @property
    def evaluations(self) -> int:
        """Pruned networks judged since the wrapper was made."""
        return self._counted() - self._before

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with the count in info; truncated from the limit on."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        spent = self.evaluations
        over = self.limit is not None and spent >= self.limit
        return observation, reward, terminated, truncated or over, info | {"evaluations": spent}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """As the environment's, with the count in info; the count goes on."""
        observation, info = self.env.reset(seed=seed, options=options)
        return observation, info | {"evaluations": self.evaluations}

    def _counted(self) -> int:
        inner: Any = self.env.unwrapped
        return int(inner.evaluations)
