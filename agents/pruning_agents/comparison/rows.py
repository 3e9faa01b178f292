"""What is written down about one agent with one seed, and the file that keeps it.

Nothing here runs an agent or compares two.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pruning_agents.comparison.origin import Origin
from pruning_agents.search.registry import agent_names, get_agent
from pruning_agents.search.rows import Provenance, ResultRow, check_found, keyed_rows

#: The task of which everything is known, `CNNPruneTabular-v0`.
TABULAR = "tabular"


class CellKey(NamedTuple):
    """What makes two rows answers to the same question."""

    task: str
    settings: str
    agent: str
    seed: int
    allowed: int
    suite: str | None = None


@dataclass(frozen=True)
class Anchors:
    """Search-val accuracies that a score is measured by, in [0, 1].

    Attributes:
        optimum: the best that there is within the budget; normalised regret 0.
        random: mean of the random policy; normalised regret 1.
    """

    optimum: float
    random: float


@dataclass(frozen=True)
class FinalPolicy:
    """What the agent does when it has learned: one episode of its deterministic policy.

    Attributes:
        accuracy: search-val accuracy at the end of the episode, in [0, 1].
        feasible: whether it ends within every budget.
        counts: (L,) channels kept.
        cost: of the episode; None where the budget is no limit on a cost.
    """

    accuracy: float
    feasible: bool
    counts: tuple[int, ...]
    cost: float | None = None


@dataclass(frozen=True)
class AgentRow:
    """One agent, one seed. Accuracies are on search-val and in [0, 1]; None: nothing was found.

    The last fields are None in rows that were written before there were such fields.

    Attributes:
        agent: registered name, or "module:name".
        task: "tabular", or a registered task.
        settings: keyword arguments of the environment, "budget" among them.
        seed: of the search.
        seeded: whether another seed could have given another result.
        allowed: evaluations that the search was allowed.
        spent: evaluations that the environment counted.
        history: (evaluations, best feasible accuracy) at each improvement.
        feasible: whether something within every budget was found.
        counts: (L,) channels that the incumbent keeps.
        val_accuracy: of the incumbent.
        params: parameters of the incumbent.
        params_ratio: to the dense network.
        macs: multiply-accumulates of the incumbent, per image.
        macs_ratio: to the dense network.
        final: of agents that leave a policy behind; None for the others.
        anchors: where they are known exactly; else None.
        failed: "" or why there is no result: the agent raised, spent too much, or what it reported
            is not what the environment says.
        wall_seconds: of the search.
        provenance: how, where and when.
        test_accuracy: of the incumbent, on test; looked at when the search was over.
        test_openings: looks at the test split in all: one of the judge, where there is an
            incumbent, and those that the search took itself.
        cost: of the incumbent, where the budget is a limit on a cost; 1 is the limit.
        episodes: there, those that the search stepped to their end.
        violations: those of them that ended above the limit.
        origin: what the result was made from.
        image_passes: images that pruned networks were shown during the search, see `Ledger`.
        test_loads: loads of a data set by the search itself, which show it the test split.
        ended: why the search ended, of `pruning_agents.search.result.ENDINGS`.
        suite: of `pruning_env.suites` that the row is for; None for none.
    """

    agent: str
    task: str
    settings: dict[str, Any]
    seed: int
    seeded: bool
    allowed: int
    spent: int
    history: tuple[tuple[int, float], ...]
    feasible: bool
    counts: tuple[int, ...] | None
    val_accuracy: float | None
    params: int | None
    params_ratio: float | None
    macs: int | None
    macs_ratio: float | None
    final: FinalPolicy | None
    anchors: Anchors | None
    failed: str
    wall_seconds: float
    provenance: Provenance
    test_accuracy: float | None = None
    test_openings: int | None = None
    cost: float | None = None
    episodes: int | None = None
    violations: int | None = None
    origin: Origin | None = None
    image_passes: int | None = None
    test_loads: int | None = None
    ended: str | None = None
    suite: str | None = None

    @property
    def key(self) -> CellKey:
        """Rows of equal keys answer the same question; the later one counts."""
        settings = settings_text(self.settings)
        return CellKey(self.task, settings, self.agent, self.seed, self.allowed, self.suite)

    def regret_at(self, evaluations: ArrayLike) -> NDArray[np.float64]:
        """(N,) normalised regret of the incumbent after (N,) evaluations; see `regret`.

        A search that ended early keeps what it had. NaN beyond the evaluations that were allowed.
        """
        numbers = np.atleast_1d(np.asarray(evaluations, dtype=np.float64))
        spent = np.array([at for at, _ in self.history])
        best = np.array([0.0, *(accuracy for _, accuracy in self.history)])
        values = self.regret(best[np.searchsorted(spent, numbers, side="right")])
        return np.where(numbers > self.allowed, np.nan, values)

    def final_regret(self) -> float | None:
        """Normalised regret of the final policy, outside the budget that of accuracy 0.

        None where there is no policy.
        """
        if self.final is None:
            return None
        return float(self.regret(self.final.accuracy if self.final.feasible else 0.0))

    def found_at(self, evaluations: int) -> bool:
        """Whether anything feasible was known after so many evaluations."""
        return bool(self.history) and self.history[0][0] <= evaluations

    def regret(self, accuracy: ArrayLike) -> NDArray[np.float64]:
        """Distance to the optimum, in units of the random policy's mean distance to it.

        Without anchors it is the error, 1 - accuracy. Having found nothing is accuracy 0, as of a
        network that is never right: worse than 1, and worse than any network.
        """
        optimum, random = (
            (self.anchors.optimum, self.anchors.random) if self.anchors else (1.0, 0.0)
        )
        return (optimum - np.asarray(accuracy, dtype=np.float64)) / (optimum - random)

    def to_json(self) -> str:
        """One line of JSON without a line break. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def of_result(cls, row: ResultRow) -> AgentRow:
        """What a row of `cnnprune train` says, as a row of an agent.

        It has neither anchors nor origin; its environment is `CNNPrune-v0`, also where the table
        was searched, which judges the same networks.
        """
        return cls(
            agent=row.agent,
            task=row.task,
            settings={"budget": row.budget, **row.settings},
            seed=row.seed,
            seeded=row.agent not in agent_names() or get_agent(row.agent).seeded,
            allowed=row.evaluations if row.allowed is None else row.allowed,
            spent=row.evaluations,
            history=row.history,
            feasible=True,
            counts=row.counts,
            val_accuracy=row.val_accuracy,
            params=row.params,
            params_ratio=row.params_ratio,
            macs=row.macs,
            macs_ratio=row.macs_ratio,
            final=None,
            anchors=None,
            failed="",
            wall_seconds=row.wall_seconds,
            provenance=row.provenance,
            test_accuracy=row.test_accuracy,
            test_openings=None if row.test_accuracy is None else 1,
            image_passes=row.image_passes,
            ended=row.ended,
        )

    @classmethod
    def from_json(cls, line: str) -> AgentRow:
        """The row that `to_json` wrote, or that a `ResultRow` is.

        Raises:
            json.JSONDecodeError: if the line is not JSON.
            ValueError: if it is no object with the fields of a row and no others (only those that
                later versions have added may be missing), or says what cannot be, as when it was
                altered.
        """
        data = json.loads(line)
        if isinstance(data, dict) and "dense_val_accuracy" in data:
            return cls.of_result(ResultRow.from_json(line))
        needed = {
            each.name for each in dataclasses.fields(cls) if each.default is dataclasses.MISSING
        }
        if not isinstance(data, dict) or needed - set(data):
            missing = sorted(needed - set(data)) if isinstance(data, dict) else sorted(needed)
            raise ValueError(f"not a row of an agent; missing fields: {missing}. {_WANTED}")
        try:
            data["provenance"] = Provenance(**data["provenance"])
            data["history"] = tuple((int(at), float(best)) for at, best in data["history"])
            data["counts"] = None if data["counts"] is None else tuple(data["counts"])
            data["anchors"] = data["anchors"] and Anchors(**data["anchors"])
            data["origin"] = Origin(**data["origin"]) if data.get("origin") else None
            if data["final"]:
                final = {**data["final"], "counts": tuple(data["final"]["counts"])}
                data["final"] = FinalPolicy(**final)
            row = cls(**data)
            if not row.failed:
                check_found(row.history, row.spent, row.val_accuracy)
                best = row.anchors.optimum if row.anchors else 1.0
                if row.val_accuracy is not None and row.val_accuracy > best:
                    raise ValueError(f"val_accuracy={row.val_accuracy}; the optimum is {best}")
            return row
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of an agent: {error}") from error


def settings_text(settings: dict[str, Any]) -> str:
    """Settings as text that is equal when they are."""
    return json.dumps(settings, sort_keys=True)


def read_rows(path: str | os.PathLike[str]) -> dict[CellKey, AgentRow]:
    """Rows by key, the last of each; see `pruning_agents.search.rows.keyed_rows`."""
    return keyed_rows(path, AgentRow.from_json, lambda row: row.key)


#: What commands that read rows take.
_WANTED = (
    "Give what `cnnprune train` or `python -m benchmarks agents` wrote: result.json, a file of "
    "rows (.jsonl), or a folder that holds some"
)


def rows_of_files(paths: Sequence[Path]) -> list[AgentRow]:
    """The rows of several files, one after another.

    Args:
        paths: files of rows; of a folder, all `result.json` in it and below, and where there is
            none, its `.jsonl` files.

    Raises:
        ValueError: one is no file, or holds no rows.
    """
    rows: list[AgentRow] = []
    for path in paths:
        if not path.exists():
            raise ValueError(f"{path} is no file. {_WANTED}")
        found = [row for file in _files_in(path) for row in read_rows(file).values()]
        if not found:
            raise ValueError(f"{path} holds no rows. {_WANTED}")
        rows += found
    return rows


def _files_in(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(path.rglob("result.json")) or sorted(path.glob("*.jsonl"))
