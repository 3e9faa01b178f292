"""What is written down about one constrained run, and the file that keeps it.

Nothing here trains an agent or draws a conclusion.
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

from pruning_agents.search.rows import Provenance, keyed_rows

#: PPOLagrangian under a limit; and PPO that pays a fixed price for every parameter.
LAGRANGIAN, FIXED = "ppo-lagrangian", "fixed-price"


class RunKey(NamedTuple):
    """What makes two rows answers to the same question."""

    method: str
    number: float
    seed: int
    settings: str


@dataclass(frozen=True)
class Rollout:
    """One rollout of training, or several in a row as their means.

    Attributes:
        episodes: that had ended by its end; each cost one evaluation.
        multiplier: λ after its update; 0 where there is none.
        usage: mean parameters / dense at the end of its episodes.
        reward: their mean reward, in percentage points of search-val accuracy to dense.
    """

    episodes: int
    multiplier: float
    usage: float
    reward: float


@dataclass(frozen=True)
class Outcome:
    """What a policy does, over several episodes.

    Attributes:
        episodes: how many.
        usage: mean parameters / dense at their end.
        accuracy: mean search-val accuracy at their end, in [0, 1].
        feasible: share of them that end within the budget.
    """

    episodes: int
    usage: float
    accuracy: float
    feasible: float


@dataclass(frozen=True)
class ConstrainedRow:
    """One method, one limit or price, one seed.

    Attributes:
        method: "ppo-lagrangian" or "fixed-price".
        number: the budget, parameters / dense; or the price, percentage points of accuracy that all
            parameters of the dense network together cost.
        seed: of the training.
        settings: of environment and agent.
        history: training.
        policy: the final policy as it was trained, with its noise.
        mode: one episode of its most likely actions.
        status: what PPOLagrangian says of the constraint; "" for a fixed price.
        price: in the units of `number`: the multiplier's price at the end, or the fixed one.
        optimum: search-val accuracy of the best network within the budget, in [0, 1]; None for a
            fixed price.
        evaluations: different networks judged; repeats are free in a table.
        cpu_seconds: of the training.
        provenance: how, where and when.
        projected: the end of its most likely actions, projected onto the budget; see
            `pruning_agents.ppo_lagrangian.projection`. None for a fixed price.
        delivered: the most accurate network within the budget, of that one and all that were seen
            in training: what is handed over. None for a fixed price.
    """

    method: str
    number: float
    seed: int
    settings: dict[str, Any]
    history: tuple[Rollout, ...]
    policy: Outcome
    mode: Outcome
    status: str
    price: float
    optimum: float | None
    evaluations: int
    cpu_seconds: float
    provenance: Provenance
    projected: Outcome | None = None
    delivered: Outcome | None = None

    @property
    def key(self) -> RunKey:
        """Rows of equal keys answer the same question; the later one counts."""
        return run_key(self.method, self.number, self.seed, self.settings)

    @property
    def trained_at(self) -> float:
        """The limit of training / the budget: what is below 1 is a margin."""
        return float(self.settings["training"].get("cost_limit", 1.0))

    @property
    def cost(self) -> float:
        """Mean usage of the final policy / limit; 1 is the limit."""
        return self.policy.usage / self.number

    def to_json(self) -> str:
        """One line of JSON without a line break. NaN and infinities are refused."""
        data = dataclasses.asdict(self)
        data["history"] = [list(dataclasses.astuple(rollout)) for rollout in self.history]
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ConstrainedRow:
        """The row that `to_json` wrote.

        Raises:
            json.JSONDecodeError: if the line is not JSON.
            ValueError: if it is no object with exactly the fields of a row.
        """
        data = json.loads(line)
        try:
            data["history"] = tuple(Rollout(*rollout) for rollout in data["history"])
            data["policy"], data["mode"] = Outcome(**data["policy"]), Outcome(**data["mode"])
            for name in ("projected", "delivered"):
                if data.get(name) is not None:
                    data[name] = Outcome(**data[name])
            data["provenance"] = Provenance(**data["provenance"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a row of a constrained run: {error}") from error


def run_key(method: str, number: float, seed: int, settings: dict[str, Any]) -> RunKey:
    """The key of the row that such a run leaves."""
    return RunKey(method, number, seed, json.dumps(settings, sort_keys=True))


def read_rows(path: str | os.PathLike[str]) -> dict[RunKey, ConstrainedRow]:
    """Rows by key, the last of each; see `pruning_agents.search.rows.keyed_rows`."""
    return keyed_rows(path, ConstrainedRow.from_json, lambda row: row.key)
