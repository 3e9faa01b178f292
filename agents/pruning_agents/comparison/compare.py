"""Two files of rows, pair by pair: the difference, its interval, and what may be said of it.

Pairs are rows of the same task, settings, seed and evaluations. Reads rows only, runs nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning_agents.comparison.questions import Question, questions
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.statistics import Interval, paired_difference
from pruning_agents.comparison.table import FEWEST_PAIRS, verdict

#: What the two sides are called while they are asked the same questions.
_SIDES = ("first", "second")


@dataclass(frozen=True)
class Comparison:
    """What came of two agents on one task with one kind of environment.

    Attributes:
        question: task, budget and settings in words.
        names: the two agents, as they are to be called.
        allowed: evaluations that both were allowed.
        evaluations: after which they are compared.
        anchored: whether regrets are normalised; otherwise they are errors, 1 - accuracy.
        regrets: (pairs,) of each of the two, partner by partner.
        failed: rows of each of the two that hold no result and so have no pair.
        interval: of the mean difference, first - second; None with a single pair.
    """

    question: str
    names: tuple[str, str]
    allowed: int
    evaluations: int
    anchored: bool
    regrets: tuple[NDArray[np.float64], NDArray[np.float64]]
    failed: tuple[int, int]
    interval: Interval | None

    @property
    def pairs(self) -> int:
        """How many there are."""
        return int(self.regrets[0].size)

    @property
    def words(self) -> str:
        """What may be said."""
        if self.interval is None or self.pairs < FEWEST_PAIRS:
            return f"too few pairs to say anything ({self.pairs}; at least {FEWEST_PAIRS} needed)"
        return verdict(*self.names, self.interval)

    def __str__(self) -> str:
        unit = "normalised regret" if self.anchored else "error on search-val"
        first, second = (float(values.mean()) for values in self.regrets)
        lines = [
            f"{self.question}, {unit} after {self.evaluations:,} of {self.allowed:,} evaluations, "
            f"{self.pairs} pairs",
            f"  {self.names[0]}: {first:.4f}   {self.names[1]}: {second:.4f}   (less is better)",
        ]
        if self.interval is not None:
            low, high = self.interval.low, self.interval.high
            lines.append(
                f"  difference {self.interval.estimate:+.4f}, 95 % interval {low:+.4f} to "
                f"{high:+.4f}"
            )
        lines.append(f"  {self.words}")
        for name, failed in zip(self.names, self.failed, strict=True):
            if failed:
                lines.append(f"  left out: {failed} rows of {name} without a result")
        return "\n".join(lines)


def compare(
    first: Sequence[AgentRow],
    second: Sequence[AgentRow],
    agents: tuple[str, str] | None = None,
    evaluations: int | None = None,
    labels: tuple[str, str] = ("a", "b"),
) -> tuple[Comparison, ...]:
    """All comparisons that two sets of rows allow.

    Args:
        first: rows, the last of each cell only.
        second: likewise.
        agents: who of the first is compared with whom of the second. None: where each has a single
            agent, these; otherwise every agent that is in both with itself, as of two versions.
        evaluations: after which incumbents are looked at; None for all that were allowed.
        labels: of the two sets, for agents of the same name.

    Raises:
        ValueError: nothing pairs; the message says what there is on either side.
    """
    found = []
    for pair in _pairs_of_agents(first, second, agents):
        names = pair if pair[0] != pair[1] else tuple(f"{pair[0]} ({each})" for each in labels)
        sides = [
            [dataclasses.replace(row, agent=side) for row in rows if row.agent == agent]
            for rows, agent, side in zip((first, second), pair, _SIDES, strict=True)
        ]
        every = sides[0] + sides[1]
        for allowed in sorted(
            {row.allowed for row in sides[0]} & {row.allowed for row in sides[1]}
        ):
            own = [row for row in every if row.allowed == allowed]
            for question in questions(own):
                number = allowed if evaluations is None else evaluations
                made = _comparison(question, own, (names[0], names[1]), allowed, number)
                found += [made] * (made is not None)
    if not found:
        raise ValueError(
            "nothing pairs: rows must be of the same task, settings, seed and evaluations. "
            f"First: {_about(first)}. Second: {_about(second)}"
        )
    return tuple(each for each in found if each is not None)


def _comparison(
    question: Question,
    rows: Sequence[AgentRow],
    names: tuple[str, str],
    allowed: int,
    evaluations: int,
) -> Comparison | None:
    regrets = question.pairs(*_SIDES, evaluations)
    if not regrets[0].size:
        return None
    place = (question.suite, question.task, question.settings)
    own = [row for row in rows if (row.suite, row.task, row.settings) == place]
    failed = [sum(bool(row.failed) for row in own if row.agent == side) for side in _SIDES]
    interval = paired_difference([regrets[0]], [regrets[1]]) if regrets[0].size > 1 else None
    return Comparison(
        question.title,
        names,
        allowed,
        evaluations,
        question.anchored,
        regrets,
        (failed[0], failed[1]),
        interval,
    )


def _pairs_of_agents(
    first: Sequence[AgentRow], second: Sequence[AgentRow], agents: tuple[str, str] | None
) -> list[tuple[str, str]]:
    ours, theirs = (list(dict.fromkeys(row.agent for row in rows)) for rows in (first, second))
    if agents is not None:
        for name, known, place in zip(agents, (ours, theirs), _SIDES, strict=True):
            if name not in known:
                raise ValueError(f"agents: {name!r} is not in the {place} file: {', '.join(known)}")
        return [agents]
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    both = [(agent, agent) for agent in ours if agent in theirs]
    if not both:
        raise ValueError(
            f"agents: none is in both files; say which to compare. First: {', '.join(ours)}. "
            f"Second: {', '.join(theirs)}"
        )
    return both


def _about(rows: Sequence[AgentRow]) -> str:
    parts = []
    for question in questions(rows):
        for agent, own in question.runs.items():
            seeds = ", ".join(str(row.seed) for row in own)
            parts.append(
                f"{agent} on {question.title}, {own[0].allowed} evaluations, seeds {seeds}"
            )
        parts += [f"{agent} without a result on {question.title}" for agent in question.failures]
    return "; ".join(parts) or "no rows"
