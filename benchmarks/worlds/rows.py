"""What is written down about one pruned network, as JSON lines. Nothing here runs one."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from pruning_agents.search.rows import Provenance, keyed_rows
from pruning_agents.zero_shot.demonstrations import Question

__all__ = ["WorldRow", "read_rows", "row_key"]


@dataclass(frozen=True)
class WorldRow:
    """A network, pruned to a budget by a method. Accuracies are in [0, 1], of the fitted network.

    Attributes:
        question: Which network and budget.
        family: Of the network.
        method: A rule, a search, or a policy by how it learned.
        learned_on: Training networks of a policy; 0 of what does not learn.
        evaluations: That the method could spend on this network.
        seed: Of the search, or of the policy's training.
        counts: (L,) channels that each group keeps.
        val_accuracy: On search-val.
        test_accuracy: On test.
        dense_test_accuracy: Of the network before.
        macs: MACs / dense.
        provenance: How, where and when.
    """

    question: Question
    family: str
    method: str
    learned_on: int
    evaluations: int
    seed: int
    counts: tuple[int, ...]
    val_accuracy: float
    test_accuracy: float
    dense_test_accuracy: float
    macs: float
    provenance: Provenance

    @property
    def key(self) -> str:
        """Equal for equal questions and methods."""
        return row_key(self.question, self.method, self.learned_on, self.evaluations, self.seed)

    def to_json(self) -> str:
        """One line of JSON. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> WorldRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: It is none.
        """
        data: Any = json.loads(line)
        try:
            data["question"] = Question.from_fields(data["question"])
            data["counts"] = tuple(data["counts"])
            data["provenance"] = Provenance(**data["provenance"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of worlds: {error}") from error


def row_key(question: Question, method: str, learned_on: int, evaluations: int, seed: int) -> str:
    """Text that is equal for equal questions and methods only."""
    return json.dumps([dataclasses.asdict(question), method, learned_on, evaluations, seed])


def read_rows(path: str | os.PathLike[str]) -> dict[str, WorldRow]:
    """Rows by key, the last of each; see `keyed_rows`."""
    return keyed_rows(path, WorldRow.from_json, lambda row: row.key)
