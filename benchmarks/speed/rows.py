"""What is written down about one speed measurement."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pruning_agents.search.rows import Provenance
from pruning_env.files import atomic_write

#: The questions, in the order of the report.
QUESTIONS = ("step", "peer", "search", "vector", "scaling", "crossover")


@dataclass(frozen=True)
class SpeedRow:
    """One subject of one question. Seconds are medians, ratios medians of ratios within a round.

    Attributes:
        question: one of `QUESTIONS`.
        subject: what was measured, such as a network's name.
        device: torch device.
        smoke: whether sizes were cut down to try the program, not to measure.
        rounds: timed rounds; the contestants take turns within each.
        seed: of masks, actions, weights and pixels.
        images: search-val images that a candidate is judged on.
        recovery_images: images that batch norm is re-estimated from; 0 without recovery.
        seconds: by contestant.
        ratios: by what is compared, or slopes.
        notes: what else decides the figures, such as the plan.
        load: load average of the last minute before the measurement.
        provenance: how, where and when.
    """

    question: str
    subject: str
    device: str
    smoke: bool
    rounds: int
    seed: int
    images: int
    recovery_images: int
    seconds: dict[str, float]
    ratios: dict[str, float]
    notes: str
    load: float
    provenance: Provenance

    @property
    def key(self) -> tuple[str, str, str, bool]:
        """What makes a row another row."""
        return self.question, self.subject, self.device, self.smoke

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> SpeedRow:
        """The row that `to_json` wrote."""
        data = json.loads(line)
        return cls(**(data | {"provenance": Provenance(**data["provenance"])}))


def read_speed_rows(path: Path) -> tuple[SpeedRow, ...]:
    """The rows of a file; none when there is no file."""
    if not path.exists():
        return ()
    return tuple(SpeedRow.from_json(line) for line in path.read_text().splitlines() if line)


def write_speed_rows(path: Path, rows: tuple[SpeedRow, ...]) -> None:
    """Replace the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, "".join(row.to_json() + "\n" for row in rows))


def load_average() -> float:
    """Of the last minute; 0 where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
