"""Runs variants of RL-Pruner on the solved tier, seed by seed, and writes what they found.

Whatever a variant judges its networks by, what it hands over is looked up in the same column of the
table, with batch norm re-estimated.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablation.variants import BUDGET, TRANSITIONS, VARIANTS, Variant
from pruning_agents import RLPruner
from pruning_agents.search.rows import Provenance, append_row, keyed_rows, provenance
from pruning_env.tabular.env import CNNPruneTabularEnv

__all__ = ["AblationRow", "read_rows", "run"]


@dataclass(frozen=True)
class AblationRow:
    """What one variant found with one seed.

    Attributes:
        variant: its name.
        seed: of the search.
        transitions: that it made.
        evaluations: different networks that it judged.
        counts: (L,) channels kept by the best; None if nothing feasible was found.
        accuracy: search-val accuracy of that, batch norm re-estimated, in [0, 1].
        regret: normalised; 0 is the best network within the budget, 1 a random policy.
        seconds: wall-clock.
        provenance: how, where and when.
    """

    variant: str
    seed: int
    transitions: int
    evaluations: int
    counts: tuple[int, ...] | None
    accuracy: float | None
    regret: float | None
    seconds: float
    provenance: Provenance

    @property
    def key(self) -> str:
        """Equal for equal questions."""
        return f"{self.variant}, {self.transitions}, {self.seed}"

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> AblationRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        data: Any = json.loads(line)
        try:
            data["provenance"] = Provenance(**data["provenance"])
            data["counts"] = None if data["counts"] is None else tuple(data["counts"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of an ablation: {error}") from error


def read_rows(path: Path) -> dict[str, AblationRow]:
    """Rows by their key, the last of each."""
    return keyed_rows(path, AblationRow.from_json, lambda row: row.key)


def run(
    path: Path, seeds: int, command: str, transitions: int = TRANSITIONS
) -> Iterator[AblationRow]:
    """Run what has no row in a file yet, all variants of a seed before the next; append each row.

    Args:
        path: of the rows.
        seeds: how many.
        command: what was typed.
        transitions: that each search makes.
    """
    known = read_rows(path)
    reference = CNNPruneTabularEnv(budget=BUDGET, recovery="bn")
    origin = provenance(command)
    for seed in range(seeds):
        for variant in VARIANTS:
            if f"{variant.name}, {transitions}, {seed}" not in known:
                row = _search(variant, seed, transitions, reference, origin)
                append_row(path, row)
                yield row


def _search(
    variant: Variant,
    seed: int,
    transitions: int,
    reference: CNNPruneTabularEnv,
    origin: Provenance,
) -> AblationRow:
    begun = time.perf_counter()
    env = CNNPruneTabularEnv(budget=BUDGET, **variant.env)
    agent = RLPruner("DistributionPolicy", env, seed=seed, **variant.agent).learn(transitions)
    found = agent.incumbent
    regret = None if found is None else reference.regret(found.state)
    return AblationRow(
        variant=variant.name,
        seed=seed,
        transitions=transitions,
        evaluations=env.evaluations,
        counts=None if found is None else tuple(int(count) for count in found.state.counts),
        accuracy=None if regret is None else regret.optimum - regret.raw,
        regret=None if regret is None else regret.normalised,
        seconds=time.perf_counter() - begun,
        provenance=origin,
    )
