"""What is written down about a cell, as JSON lines. Nothing here runs one."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from benchmarks.reproduce.specification import Cell, Recovery
from pruning_agents.search.rows import Provenance, keyed_rows

__all__ = ["Pruned", "ReproduceRow", "read_rows"]


@dataclass(frozen=True)
class Pruned:
    """The network that a cell ends with. Accuracies are in [0, 1].

    Attributes:
        before_val: On search-val, as the search left it.
        val_accuracy: On search-val, after recovery, weights as stored.
        test_accuracy: On test, opened once, for these weights.
        epoch: Of recovery that was kept; 0 for none of them.
        precision: Of recovery; what "auto" meant where it was asked for.
        params: Parameters.
        params_share: Of the dense network's.
        macs: Multiply-accumulates per image.
        macs_share: Of the dense network's.
        filters_cut: Share of filters and neurons removed; RL-Pruner's sparsity.
        counts: (L,) channels kept.
        weights_sha256: Of the stored weights.
        weights_bytes: Their size.
    """

    before_val: float
    val_accuracy: float
    test_accuracy: float
    epoch: int
    precision: str
    params: int
    params_share: float
    macs: int
    macs_share: float
    filters_cut: float
    counts: tuple[int, ...]
    weights_sha256: str
    weights_bytes: int


@dataclass(frozen=True)
class ReproduceRow:
    """A cell and what became of it.

    Attributes:
        cell: What was asked.
        dense_val: Search-val accuracy of the dense network, in [0, 1].
        dense_test: Its test accuracy.
        base_sha256: Of the dense network's weights.
        val_seen: Whether these were trained on search-val images.
        evaluations: That the search spent.
        pruned: None if nothing within the budget was found.
        failed: "" or why there is none.
        test_openings: Looks at the test split: one by the dense network, one by the pruned.
        search_minutes: Wall-clock.
        recovery_minutes: Wall-clock.
        provenance: How, where and when.
    """

    cell: Cell
    dense_val: float
    dense_test: float
    base_sha256: str
    val_seen: bool
    evaluations: int
    pruned: Pruned | None
    failed: str
    test_openings: int
    search_minutes: float
    recovery_minutes: float
    provenance: Provenance

    def to_json(self) -> str:
        """One line of JSON. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ReproduceRow:
        """The row that `to_json` wrote.

        Raises:
            json.JSONDecodeError: The line is not JSON.
            ValueError: It is no object with exactly the fields of a row.
        """
        data: Any = json.loads(line)
        try:
            cell = {**data["cell"], "recovery": Recovery(**data["cell"]["recovery"])}
            data["cell"] = Cell(**cell)
            if data["pruned"] is not None:
                data["pruned"] = Pruned(
                    **{**data["pruned"], "counts": tuple(data["pruned"]["counts"])}
                )
            data["provenance"] = Provenance(**data["provenance"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of a reproduced table: {error}") from error


def read_rows(path: str | os.PathLike[str]) -> dict[str, ReproduceRow]:
    """Rows by the key of their cell, the last of each; see `keyed_rows`."""
    return keyed_rows(path, ReproduceRow.from_json, lambda row: row.cell.key)
