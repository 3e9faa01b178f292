"""`Evaluator`'s interface over the table: accuracies are looked up, not measured.

It judges what `Evaluator` judges, and counts as it does, without network or images. Knows nothing
of actions, budgets, rewards or agents.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from pruning_env.arguments import check_choice
from pruning_env.evaluation.evaluator import Metrics, Recovered
from pruning_env.evaluation.ledger import Ledger
from pruning_env.evaluation.vault import Vault
from pruning_env.evaluation.weights import Weights
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tabular.table import RECOVERIES, Table

__all__ = ["TableEvaluator"]

_MEMORY = ("cache_hits", "_seen")


class TableEvaluator:
    """Looks up what the table has for a keep mask, in place of an `Evaluator`.

    `Evaluator` forgets the oldest of more than 4,096 masks and pays for them again; a table forgets
    nothing, so every configuration is paid for once.

    Args:
        table: Of the network that `graph` is of.
        graph: Its channels.
        recovery: "none" or "bn": which of the table's results are asked for.

    Attributes:
        graph: As given.
        table: As given, but without its test columns, which are sealed.
        recovery: As given.
        rank: (C,) the ranking of the table.
        accuracy: (M,) float64, on search-val, of every configuration.
        loss: (M,) float64, on search-val.
        ledger: What counts evaluations and looks at test results; copies share it.
        cache_hits: Answers that were repeats.
        trains: False: no recovery in the table trains.
        trains_commits: False, likewise.
        device: The CPU.
        race: None: a look-up costs no image, so there is nothing to save.

    Raises:
        ValueError: An unknown recovery, or the table is of another network.
    """

    trains = trains_commits = False
    race: float | None = None
    device = torch.device("cpu")

    def __init__(self, table: Table, graph: ChannelGraph, recovery: str = "bn") -> None:
        check_choice("recovery", recovery, RECOVERIES)
        table.check(graph)
        self.table = table.without_test()
        self.graph = graph
        self.recovery = recovery
        self.rank = graph.rank(table.scores)
        results = table.results[recovery]
        self.accuracy = results.val_correct / table.val_images
        self.loss = results.val_loss.astype(np.float64)
        self.ledger = Ledger()
        self.cache_hits = 0
        columns = results.test_correct, results.test_loss
        self._sealed: Vault[Any] = Vault(columns, self.ledger)
        self._seen = np.zeros(table.size, dtype=np.bool_)

    @property
    def evaluations(self) -> int:
        """Configurations judged on search-val so far, by copies too; each is counted once."""
        return self.ledger.evaluations

    @property
    def image_passes(self) -> int:
        """None were shown."""
        return self.ledger.image_passes

    @property
    def test_openings(self) -> int:
        """How often test results were asked for, by `certify`, of copies too."""
        return self.ledger.test_openings

    def share(self, ledger: Ledger) -> None:
        """Count in `ledger` from now on: what a copy does with its original's."""
        self.ledger = self._sealed.ledger = ledger

    @property
    def dense(self) -> Metrics:
        """The dense network on search-val, no recovery; not counted."""
        return self._metrics(self.table.size - 1)

    def evaluate(self, keep: ArrayLike) -> Metrics:
        """Judge one keep mask, (C,) bool, on search-val.

        Raises:
            ValueError: The table has no such mask.
        """
        return self.evaluate_many([keep])[0]

    def evaluate_many(self, keeps: Sequence[ArrayLike] | NDArray[np.bool_]) -> list[Metrics]:
        """Judge many keep masks, each (C,) bool, on search-val.

        Raises:
            ValueError: The table lacks one of them; nothing is counted then.
        """
        return [self.look_up(place) for place in [self._place(keep) for keep in keeps]]

    def recover_many(
        self, keeps: Sequence[ArrayLike] | NDArray[np.bool_], starts: Sequence[Weights | None]
    ) -> list[Recovered]:
        """`evaluate_many`; there are no trained weights to start from or to give.

        Raises:
            ValueError: As `evaluate_many`, or weights are given.
        """
        if any(start is not None for start in starts):
            raise ValueError(f"starts: recovery={self.recovery!r} trains no weights; give None")
        return [Recovered(metrics, None) for metrics in self.evaluate_many(keeps)]

    def look_up(self, place: int) -> Metrics:
        """The entry at an index of the table, counted as an evaluation the first time."""
        if self._seen[place]:
            self.cache_hits += 1
        else:
            self._seen[place] = True
            self.ledger.judged((self.accuracy.item(place),))
        return self._metrics(place)

    def look_up_many(self, places: NDArray[np.int64]) -> tuple[np.ndarray, np.ndarray]:
        """(N,) accuracies and (N,) losses at indices (N,), counted as `look_up` would."""
        fresh = np.unique(places[~self._seen[places]])
        self._seen[fresh] = True
        if fresh.size:
            self.ledger.judged(self.accuracy[fresh].tolist())
        self.cache_hits += places.size - fresh.size
        return self.accuracy[places], self.loss[places]

    def memory(self) -> dict[str, Any]:
        """What was judged so far and what it counted; see `Evaluator.memory`."""
        kept = {name: copy.copy(getattr(self, name)) for name in _MEMORY}
        return {"evaluations": self.evaluations, **kept}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on where an evaluator of the same table was; see `Evaluator.recall`."""
        self.ledger.at_least(memory["evaluations"])
        for name in _MEMORY:
            setattr(self, name, copy.copy(memory[name]))

    def scores(
        self, kind: str = "taylor", rng: np.random.Generator | None = None
    ) -> NDArray[np.float64]:
        """(C,) importance of the dense network's channels, the one that the table was made with.

        Raises:
            ValueError: Another kind is asked for.
        """
        made_with = self.table.provenance["importance"]
        if kind != made_with:
            raise ValueError(f"kind={kind!r} is not allowed; the table was made with {made_with!r}")
        return self.table.scores.copy()

    def rehearse_many(self, keeps: Sequence[ArrayLike] | NDArray[np.bool_]) -> list[Metrics]:
        """There are no results on search-train.

        Raises:
            ValueError: Always.
        """
        raise ValueError("the table has results on search-val and test; make CNNPrune-v0 instead")

    def certify(self, keep: ArrayLike, weights: Weights | None = None) -> Metrics:
        """The test results of a keep mask, for final reports; each call is counted."""
        place = self._place(keep)
        correct, loss = self._sealed.open()
        return Metrics(int(correct[place]) / self.table.test_images, float(loss[place]))

    def pruned_model(self, keep: ArrayLike, weights: Weights | None = None) -> nn.Module:
        """There is none.

        Raises:
            NotImplementedError: Always; the message says what to do instead.
        """
        raise NotImplementedError(
            "the table holds results, no networks; for the network itself make "
            f"CNNPrune-v0 with round_to={self.table.round_to} and restore this state there"
        )

    def _metrics(self, place: int) -> Metrics:
        return Metrics(self.accuracy.item(place), self.loss.item(place))

    def _place(self, keep: ArrayLike) -> int:
        mask = np.asarray(keep)
        counts = self.graph.counts(mask)
        place = int(self.table.index(counts))
        if not np.array_equal(mask, self.graph.keep_top(self.rank, counts)):
            raise ValueError("keep is not what the table's ranking keeps at these counts")
        return place
