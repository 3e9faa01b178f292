"""What a step is paid: the reward's summands, scaled, and the price of an unmet budget.

Knows nothing of how a step prunes, what is judged or when an episode ends.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pruning_env.arguments import check_positive
from pruning_env.process.rewards import UNMET, Outcome, Reward, RewardFunction, unmet_budgets
from pruning_env.process.state import PruningState

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Payment"]


class Payment:
    """Pays steps by one reward.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network.
        reward: what a step earns.
        reward_scale: factor on every term, finite and above 0.

    Attributes:
        reward: as given.
        reward_scale: as given.
        lazy: whether the reward judges an episode's last state only.
        unmet: the reward's price of an episode's end with a budget unmet.

    Raises:
        ValueError: the scale is no finite number above 0.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        reward: RewardFunction,
        reward_scale: float,
    ) -> None:
        self._evaluator = evaluator
        self.reward = reward
        self.lazy = isinstance(reward, Reward) and reward.lazy
        self.unmet = reward.unmet if isinstance(reward, Reward) else 1.0
        self.reward_scale = check_positive("reward_scale", reward_scale)
        full = graph.full()
        self._dense_params = int(graph.params(full))
        self._dense_macs = int(graph.macs(full))

    def terms(
        self,
        before: PruningState,
        after: PruningState,
        terminated: bool,
        final: bool,
        excess: float | None,
    ) -> dict[str, float]:
        """The summands by name of a step from `before` to `after`.

        Args:
            before: judged, or with metrics known before it.
            after: likewise.
            terminated: whether the step ends an episode.
            final: whether an unmet budget counts.
            excess: how far usage is above the limits, summed; None where that costs nothing.

        Raises:
            ValueError: the reward function does not give finite numbers.
        """
        outcome = Outcome(
            before=before.latest,
            after=after.latest,
            dense=self._evaluator.dense,
            state=after,
            previous=before,
            dense_params=self._dense_params,
            dense_macs=self._dense_macs,
            terminated=terminated,
        )
        terms = self.reward(outcome)
        if not isinstance(terms, Mapping) or not all(map(math.isfinite, terms.values())):
            raise ValueError(
                f"reward function {self.reward!r} returned {terms!r}; "
                "it must return a dict of finite floats"
            )
        if excess is not None:
            terms = {**terms, UNMET: unmet_budgets(self.unmet, final, excess)}
        return {name: self.reward_scale * float(value) for name, value in terms.items()}
