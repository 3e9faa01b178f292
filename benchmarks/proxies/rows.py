"""What is written down about one network, as JSON lines. Nothing here runs one."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any

from benchmarks.proxies.specification import Allocation
from benchmarks.reproduce.specification import Recovery
from pruning_agents.search.rows import Provenance, keyed_rows

__all__ = ["Proxy", "ProxyRow", "read_rows"]


@dataclass(frozen=True)
class Proxy:
    """What a proxy says of a network, and its price.

    Attributes:
        accuracy: On search-val, in [0, 1].
        image_passes: Images that the network was shown for it, in training and judging.
    """

    accuracy: float
    image_passes: int


@dataclass(frozen=True)
class ProxyRow:
    """One network by all proxies, and trained. Accuracies are in [0, 1].

    Attributes:
        task: Registered name.
        allocation: How it was found.
        training: Of it.
        counts: (L,) channels kept.
        proxies: By name.
        val_accuracy: On search-val, trained; the epoch that is best there.
        test_accuracy: On test, of that epoch.
        training_seeds: Trainings of which both are the mean.
        minutes: Wall-clock, all of it.
        provenance: How, where and when.
    """

    task: str
    allocation: Allocation
    training: Recovery
    counts: tuple[int, ...]
    proxies: dict[str, Proxy]
    val_accuracy: float
    test_accuracy: float
    training_seeds: int
    minutes: float
    provenance: Provenance

    @property
    def key(self) -> str:
        """Equal for equal questions."""
        return row_key(self.task, self.allocation, self.training, self.training_seeds)

    def to_json(self) -> str:
        """One line of JSON. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ProxyRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: It is none.
        """
        data: Any = json.loads(line)
        try:
            data["allocation"] = Allocation(**data["allocation"])
            data["training"] = Recovery(**data["training"])
            data["counts"] = tuple(data["counts"])
            data["proxies"] = {name: Proxy(**said) for name, said in data["proxies"].items()}
            data["provenance"] = Provenance(**data["provenance"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of proxies: {error}") from error


def row_key(task: str, allocation: Allocation, training: Recovery, training_seeds: int) -> str:
    """Text that is equal for equal questions only."""
    asked = [task, allocation.key, dataclasses.asdict(training), training_seeds]
    return json.dumps(asked, sort_keys=True)


def read_rows(path: str | os.PathLike[str]) -> dict[str, ProxyRow]:
    """Rows by key, the last of each; see `keyed_rows`."""
    return keyed_rows(path, ProxyRow.from_json, lambda row: row.key)
