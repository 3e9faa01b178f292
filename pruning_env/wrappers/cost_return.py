"""`CostReturn`: the cost as a return value of its own, as Safety-Gymnasium has it.

Knows nothing of pruning: any environment with `info["cost"]` will do.
"""

from __future__ import annotations

from typing import Any, SupportsFloat

import gymnasium as gym


class CostReturn(
    gym.Wrapper[Any, Any, Any, Any],
    gym.utils.RecordConstructorArgs,
):
    """`step` returns six values: observation, reward, cost, terminated, truncated, info.

    Safety-Gymnasium's convention, for its algorithms. It must be the outermost wrapper: Gymnasium's
    own expect five. `info["cost"]` stays where it is.

    Args:
        env: environment that reports `info["cost"]` at every step.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        gym.utils.RecordConstructorArgs.__init__(self)
        super().__init__(env)

    def step(  # type: ignore[override]  # six values are what it is for
        self, action: Any
    ) -> tuple[Any, SupportsFloat, float, bool, bool, dict[str, Any]]:
        """As the environment's, with the cost third.

        Raises:
            ValueError: info has no cost; one that is taken for 0 is a constraint that vanishes.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "cost" not in info:
            raise ValueError(
                f"info has no key 'cost'; its keys: {', '.join(sorted(info))}; give an "
                "environment that reports the cost of every step"
            )
        return observation, reward, float(info["cost"]), terminated, truncated, info
