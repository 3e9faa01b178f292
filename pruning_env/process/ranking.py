"""Which channels of a group go first, in each state: by the dense network, or ranked anew.

Knows nothing of how many go, of accuracy or of episodes.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruning_env.arguments import check_count
from pruning_env.process.state import PruningState

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["Ranking"]


class Ranking:
    """Ranks the channels of states by one importance.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network.
        importance: a registered importance's name. `"random"` is one fixed random ranking.
        every: n: channels are ranked anew in states whose step n divides, by the importance of the
            state's own network; None: as in the dense network, everywhere.

    The dense network is looked at when its scores are first needed, not at construction: most
    importances need gradients, and a process that has computed one cannot be forked into processes
    that do. Vectorized environments make one environment to ask for its spaces, then fork.

    Attributes:
        every: as given.

    Raises:
        ValueError: a bad `every`, or an importance that cannot be measured on a pruned network.
    """

    def __init__(
        self, graph: ChannelGraph, evaluator: Evaluator, importance: str, every: int | None
    ) -> None:
        self._graph = graph
        self._evaluator = evaluator
        self._importance = importance
        self.every = None if every is None else check_count("rank_every", every)
        if self.every is not None and graph.normalised and importance != "taylor":
            raise ValueError(
                f"rank_every={every!r} is not allowed with importance={importance!r}: "
                f"{graph.normalised[0].module!r} takes statistics over channels that can be "
                "removed; give importance='taylor', or rank_every=None"
            )

    @functools.cached_property
    def scores(self) -> NDArray[np.float64]:
        """(C,) importance in the dense network, read-only.

        Raises:
            ValueError: the importance does not apply to this network, or is not finite.
        """
        # A fixed stream: the ranking belongs to the environment, not to an episode's seed.
        rng = np.random.default_rng(0)
        return _read_only(self._evaluator.scores(self._importance, rng=rng))

    @functools.cached_property
    def rank(self) -> NDArray[np.int64]:
        """(C,) rank inside the group in the dense network, 0 = last to go, read-only."""
        return _read_only(self._graph.rank(self.scores))

    def due(self, step: int) -> bool:
        """Whether channels are ranked anew in states after `step` steps; never at the start."""
        return self.every is not None and step > 0 and step % self.every == 0

    def scores_at(self, state: PruningState) -> NDArray[np.float64] | None:
        """(C,) importance by which the next channels go; None: the dense network's.

        Where it is due, of the state's own network and weights: one look at search-train.
        """
        if not self.due(state.step):
            return state.ranking
        return self._evaluator.scores_of(self._importance, state.keep, state.weights)

    def rank_by(self, scores: NDArray[np.float64] | None, state: PruningState) -> NDArray[np.int64]:
        """(C,) rank inside the group by what `scores_at` gave; channels that are gone come last."""
        if scores is None:
            return self.rank
        return self._graph.rank(np.where(state.keep, scores, scores.min() - 1.0))


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    copy = np.array(values)
    copy.setflags(write=False)
    return copy
