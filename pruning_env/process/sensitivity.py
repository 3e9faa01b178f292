"""How much groups matter, as an agent sees it: by importance, or by trial.

Says what is measured of a state and of the dense network. Knows nothing of when that is due.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pruning_env.arguments import check_choice
from pruning_env.process.probe import drops, probe_masks
from pruning_env.process.ranking import Ranking
from pruning_env.process.state import PruningState

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["SENSITIVITIES", "SensitivityMeter"]

SENSITIVITIES = ("importance", "probe")
"""The values that `sensitivity=` accepts."""


class SensitivityMeter:
    """Measures the sensitivity of networks, on images of search-train: no evaluation.

    Args:
        graph: the dense network's channels.
        evaluator: of the same network.
        ranking: of its channels.
        floors: (L,) the fewest channels that each group can keep.
        kind: "importance": (C,) how much each channel matters; "probe": (L,) by how much accuracy
            falls when a tenth of a group goes.
        dense_importance: whether `ranking.scores` is what is measured of other networks.

    Raises:
        ValueError: no such kind.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        ranking: Ranking,
        floors: NDArray[np.int64],
        kind: str,
        *,
        dense_importance: bool,
    ) -> None:
        check_choice("sensitivity", kind, SENSITIVITIES)
        self._graph = graph
        self._evaluator = evaluator
        self._ranking = ranking
        self._floors = floors
        self._probes = kind == "probe"
        self._dense_importance = dense_importance

    @property
    def size(self) -> int:
        """How many numbers a measurement gives: C, or by "probe" L."""
        return len(self._graph.groups) if self._probes else self._graph.num_channels

    def by_default(self) -> NDArray[np.float64]:
        """What is seen where states carry nothing: the dense network's, by the ranking's kind."""
        return self.of_dense if self._probes else self._ranking.scores

    @functools.cached_property
    def of_dense(self) -> NDArray[np.float64]:
        """What `of` would give for the dense network."""
        graph = self._graph
        if self._probes:
            masks = probe_masks(graph, self._ranking.rank, graph.sizes, self._floors)
            return self._drops(masks, None)
        if self._dense_importance:
            return self._ranking.scores
        return self._evaluator.sensitivity(graph.full())

    def of(self, state: PruningState) -> NDArray[np.float64]:
        """What is measured of a state's network, with its weights as they are."""
        if not self._probes:
            return self._evaluator.sensitivity(state.keep, state.weights)
        rank = self._ranking.rank_by(self._ranking.scores_at(state), state)
        return self._drops(probe_masks(self._graph, rank, state.counts, self._floors), state)

    def _drops(self, masks: NDArray[np.bool_], state: PruningState | None) -> NDArray[np.float64]:
        weights = None if state is None else state.weights
        judged = self._evaluator.probe(masks, weights)
        return drops(np.array([metrics.accuracy for metrics in judged]))
