"""What is written down about one class of policies on one set of cases, and the table of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass

from pruning_agents.search.rows import Provenance


@dataclass(frozen=True)
class StateRow:
    """How good a class of policies is on some cases.

    Attributes:
        scenario: name of the cases.
        cases: how many they are.
        channels_per_step: of the environment.
        policies: name of the class.
        regret: mean normalised regret of the best policy of the class, or of the best found.
        exact: whether it is the best; otherwise the class may be better than this.
        seconds: it took, exploration not included.
        seed: of starts and search.
        provenance: how, where and when.
    """

    scenario: str
    cases: int
    channels_per_step: float
    policies: str
    regret: float
    exact: bool
    seconds: float
    seed: int
    provenance: Provenance

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)


_NOTES = """
Mean normalised regret over the cases (0: the best configuration within the limit, reachable or
not; 1: the random policy) of the best policy of each class, with actions from {-1, 1}^L. "≤": what
coordinate descent from many starts found; the class may do better, so what state adds is at most
the difference. Without "≤" it is exact: enumeration, or dynamic programming over all places where
an episode can be.

- **constant**: one action for ever. **by step**: an open-loop sequence, one action for each step.
- **by progress**: the action depends on how many channels are gone and on nothing else: a sequence
  that is not thrown out of step by where an episode starts.
- **state**: any function of state and limit. **any split**: the same, and a step's units may be
  spread over the groups in every way, which no action can beat.

From one start the environment is deterministic, so a sequence can do what any policy does: there,
by step and state are the same by construction, and a difference would only say that the search for
sequences fell short. What state is worth shows where one policy must serve several starts or
limits. With one start and several limits it is the limit that must be seen, and nothing else: each
limit has its sequence. With several starts it is the configuration; "by progress" says how much of
that is only how far the episode has come. All of it is an upper bound for learned policies: dynamic
programming knows the table.
"""


def to_markdown(rows: Sequence[StateRow]) -> str:
    """The table, one line per scenario and step size, and how to read it."""
    classes = list(dict.fromkeys(row.policies for row in rows))
    titles = ["cases", "channels per step", *classes]
    lines = [titles, ["---", *["---:"] * (len(titles) - 1)]]
    for scenario, share in dict.fromkeys((row.scenario, row.channels_per_step) for row in rows):
        own = {
            row.policies: f"{'' if row.exact else '≤ '}{row.regret:.3f}"
            for row in rows
            if (row.scenario, row.channels_per_step) == (scenario, share)
        }
        lines.append([scenario, f"{share:g}", *(own.get(name, "-") for name in classes)])
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    origin = rows[0].provenance
    seconds = sum(row.seconds for row in rows)
    return (
        f"# Does state help?\n\n{body}\n{_NOTES}\n```bash\n{origin.command}\n```\n\n"
        f"{seconds:.0f} s on {origin.hardware}; seed {rows[0].seed}.\n"
    )
