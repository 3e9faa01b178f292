"""Rows sorted into questions: who did what on one task with one kind of environment.

Table and figure ask the same questions of the same rows through this module, which draws neither.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning_agents.comparison.rows import AgentRow, settings_text

#: Evaluations at which incumbents are looked at.
EVALUATIONS = (50, 100, 200, 500, 2000, 10_000)


@dataclass(frozen=True)
class Question:
    """One task with one kind of environment.

    Attributes:
        task: "tabular", or a registered task.
        settings: keyword arguments of the environment.
        suite: that it is a problem of, if the rows say so.
        runs: by agent, its rows in the order of their seeds; all of one agent were allowed the same
            number of evaluations.
        failures: by agent without any row that did not fail, what happened.
    """

    task: str
    settings: dict[str, Any]
    suite: str | None
    runs: dict[str, tuple[AgentRow, ...]]
    failures: dict[str, str]

    @property
    def title(self) -> str:
        """Suite, task, budget and settings in words."""
        settings = dict(self.settings)
        budget = settings.pop("budget", {})
        parts = [f"{name} ≤ {limit:g} of dense" for name, limit in budget.items()]
        task = self.task if self.suite is None else f"{self.suite}: {self.task}"
        return ", ".join([task, *parts, *(f"{name}={settings[name]}" for name in settings)])

    @property
    def anchored(self) -> bool:
        """Whether optimum and random policy are known; otherwise scores are errors."""
        return all(row.anchors for rows in self.runs.values() for row in rows)

    @property
    def longest(self) -> int:
        """Evaluations that the agent with the most was allowed."""
        return max((rows[0].allowed for rows in self.runs.values()), default=0)

    def seeded(self, agent: str) -> bool:
        """Whether another seed can give the agent another result."""
        return any(row.seeded for row in self.runs[agent])

    def regrets(self, agent: str, evaluations: int) -> NDArray[np.float64]:
        """(seeds,) of the incumbent; empty beyond what the agent was allowed."""
        rows = self.runs[agent]
        values = np.array([row.regret_at(evaluations)[0] for row in rows])
        return values if np.isfinite(values).all() else np.array([])

    def final_regrets(self, agent: str) -> NDArray[np.float64]:
        """(seeds,) of the final policy; empty where there is none."""
        values = [row.final_regret() for row in self.runs[agent]]
        return np.array([value for value in values if value is not None])

    def pairs(
        self, first: str, second: str, evaluations: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Regrets of two agents at the seeds that both have, partner by partner.

        An agent that no seed changes is partner at every seed. Empty where one of the two is
        missing or was allowed fewer evaluations.
        """
        return self._pairs(first, second, lambda agent: self.regrets(agent, evaluations))

    def test_pairs(
        self, first: str, second: str
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Errors on test (1 - accuracy) of two agents' incumbents in the end, as `pairs`.

        Empty also where a row has none.
        """

        def errors(agent: str) -> NDArray[np.float64]:
            found = [row.test_accuracy for row in self.runs[agent]]
            known = [1.0 - accuracy for accuracy in found if accuracy is not None]
            return np.array(known) if len(known) == len(found) else np.array([])

        return self._pairs(first, second, errors)

    def _pairs(
        self, first: str, second: str, values_of: Callable[[str], NDArray[np.float64]]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        both = []
        for agent in (first, second):
            values = values_of(agent) if agent in self.runs else np.array([])
            seeds = [row.seed for row in self.runs[agent]] if values.size else []
            both.append(dict(zip(seeds, values, strict=True)))
        for one, other in ((0, 1), (1, 0)):
            agent = (first, second)[one]
            if both[one] and not self.seeded(agent):
                (value,) = set(both[one].values())
                both[one] = dict.fromkeys(both[other], value)
        seeds = sorted(both[0].keys() & both[1].keys())
        return np.array([both[0][s] for s in seeds]), np.array([both[1][s] for s in seeds])


def drawable(rows: Sequence[AgentRow]) -> tuple[Question, ...]:
    """The questions to which there is a result.

    Raises:
        ValueError: there is none.
    """
    asked = tuple(question for question in questions(rows) if question.runs)
    if not asked:
        raise ValueError("rows have no result to draw")
    return asked


def questions(rows: Sequence[AgentRow]) -> tuple[Question, ...]:
    """The questions that rows answer, in the order of their first rows.

    Of an agent with rows for several numbers of evaluations those with the most seeds are taken,
    and of equally many those with the most evaluations.
    """
    found = []
    places = [(row.suite, row.task, settings_text(row.settings)) for row in rows]
    for place in dict.fromkeys(places):
        own = [row for row, each in zip(rows, places, strict=True) if each == place]
        runs, failures = {}, {}
        for agent in dict.fromkeys(row.agent for row in own):
            every = [row for row in own if row.agent == agent]
            good = [row for row in every if not row.failed]
            if good:
                runs[agent] = _fullest(good)
            else:
                failures[agent] = every[-1].failed
        found.append(Question(own[0].task, own[0].settings, own[0].suite, runs, failures))
    return tuple(found)


def _fullest(rows: Sequence[AgentRow]) -> tuple[AgentRow, ...]:
    groups = [
        [row for row in rows if row.allowed == allowed] for allowed in {row.allowed for row in rows}
    ]
    best = max(groups, key=lambda group: (len(group), group[0].allowed))
    return tuple(sorted(best, key=lambda row: row.seed))
