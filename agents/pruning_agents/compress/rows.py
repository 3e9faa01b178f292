"""What was found on the way to a smaller file, as rows: a fine-tuning, a judgement, times.

Rows of searches are in `pruning_agents.search.rows`. Knows the fields and the form on disk;
measures nothing.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pruning_agents.search.rows import Provenance

__all__ = ["EvaluationRow", "FineTuneRow", "LatencyRow", "line_of", "rows_in"]

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class FineTuneRow:
    """A pruned network before and after fine-tuning. Accuracies are in [0, 1].

    Attributes:
        task: Registered name.
        source: What the saved network says of itself: its agent, its seed, and the like.
        source_sha256: Of its weights.
        recipe: All settings of the training.
        epoch: That was kept, by search-val; 0 is the network as it came.
        before_val: Search-val accuracy of the network as it came.
        val_accuracy: Search-val accuracy of the one that was kept.
        dense_val_accuracy: Search-val accuracy of the dense network.
        val_seen: Whether the dense weights were trained on search-val images.
        test_accuracy: Test accuracy of the one that was kept; None when test was not opened.
        dense_test_accuracy: The same of the dense network.
        params: Parameters.
        params_ratio: Of the dense network's.
        macs: Multiply-accumulates per image.
        macs_ratio: Of the dense network's.
        minutes: Wall-clock, since the training was last resumed.
        provenance: How, where and when.
    """

    task: str
    source: dict[str, Any]
    source_sha256: str
    recipe: dict[str, Any]
    epoch: int
    before_val: float
    val_accuracy: float
    dense_val_accuracy: float
    val_seen: bool
    test_accuracy: float | None
    dense_test_accuracy: float | None
    params: int
    params_ratio: float
    macs: int
    macs_ratio: float
    minutes: float
    provenance: Provenance


@dataclass(frozen=True)
class EvaluationRow:
    """A saved network beside the dense one. Accuracies are in [0, 1].

    Attributes:
        task: Registered name.
        network: Folder of the network.
        weights_sha256: Of its weights.
        val_accuracy: On search-val.
        dense_val_accuracy: Of the dense network.
        val_seen: Whether the dense weights were trained on search-val images.
        test_accuracy: On test; None when test was not opened.
        dense_test_accuracy: Of the dense network.
        test_images: How many those are; None when test was not opened.
        params: Parameters.
        dense_params: Of the dense network.
        macs: Multiply-accumulates per image.
        dense_macs: Of the dense network.
        latency_ms: Median milliseconds per batch.
        dense_latency_ms: Of the dense network, measured side by side.
        latency_runtime: See `Runtime`.
        latency_batch: Images per timed batch.
        latency_threads: That the runtime may use.
        latency_rounds: In which both networks took turns.
        latency_interval: 95 % interval of the ratio of times.
        provenance: How, where and when.
    """

    task: str
    network: str
    weights_sha256: str
    val_accuracy: float
    dense_val_accuracy: float
    val_seen: bool
    test_accuracy: float | None
    dense_test_accuracy: float | None
    test_images: int | None
    params: int
    dense_params: int
    macs: int
    dense_macs: int
    latency_ms: float
    dense_latency_ms: float
    latency_runtime: str
    latency_batch: int
    latency_threads: int
    latency_rounds: int
    latency_interval: tuple[float, float]
    provenance: Provenance


@dataclass(frozen=True)
class LatencyRow:
    """How long a pass takes in a runtime, the dense network beside the pruned one.

    Attributes:
        runtime: See `Runtime`.
        batch: Images per pass.
        threads: That the runtime may use.
        ms: Median milliseconds of the pruned network.
        dense_ms: Of the dense network, the two taking turns.
        ratio: `ms` / `dense_ms`.
        rounds: In which they took turns.
        interval: 95 % interval of the ratio.
        provenance: How, where and when.
    """

    runtime: str
    batch: int
    threads: int
    ms: float
    dense_ms: float
    ratio: float
    rounds: int
    interval: tuple[float, float]
    provenance: Provenance


def line_of(row: Any) -> str:
    """A row as one line of JSON. NaN and infinities are refused."""
    return json.dumps(dataclasses.asdict(row), allow_nan=False)


def rows_in(path: Path, kind: type[_Row]) -> list[_Row]:
    """The rows in a file of lines that `line_of` made.

    Raises:
        ValueError: The file holds something else.
    """
    rows = []
    for line in path.read_text().splitlines():
        try:
            values = json.loads(line)
            rows.append(kind(**{**values, "provenance": Provenance(**values["provenance"])}))
        except (TypeError, KeyError, ValueError) as error:
            raise ValueError(f"{path} holds no {kind.__name__}: {error}") from error
    return rows
