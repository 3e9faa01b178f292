"""Suites as cells and rows: which cells one asks for, and whether a row belongs to it.

Knows suites and rows; runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pruning_agents.comparison.rows import TABULAR, AgentRow, settings_text
from pruning_env.suites import SUITES, Problem, Suite

#: The environment behind the task of which everything is known.
_SOLVED = "CNNPruneTabular-v0"


def place_of(problem: Problem) -> tuple[str, dict[str, Any]]:
    """Task and settings of a problem, as cells and rows have them."""
    settings = dict(problem.kwargs)
    return (TABULAR if problem.env_id == _SOLVED else settings.pop("task")), settings


def objections(row: AgentRow) -> list[str]:
    """Why a row is none of the suite that it names; empty if it is, or names none."""
    if row.suite is None:
        return []
    if row.suite not in SUITES:
        return [f"suite {row.suite!r} is not known; known: {', '.join(SUITES)}"]
    problem = problem_of(SUITES[row.suite], row)
    if problem is None:
        return [f"suite {row.suite} has no such task with such settings"]
    problems = []
    if row.allowed != problem.evaluations:
        problems.append(f"suite {row.suite} allows {problem.evaluations}, not {row.allowed}")
    if not 0 <= row.seed < problem.seeds:
        problems.append(f"suite {row.suite} has seeds 0 to {problem.seeds - 1}, not {row.seed}")
    if row.origin is None:
        problems.append(f"suite {row.suite}: a row of one says what it was made from")
        return problems
    for what, ours, theirs in (
        ("weights", problem.weights_sha256, row.origin.weights_sha256),
        ("data", problem.data_sha256, row.origin.data_sha256),
    ):
        if ours != theirs:
            problems.append(f"suite {row.suite} is of other {what}: {ours[:12]}...")
    return problems


def problem_of(suite: Suite, row: AgentRow) -> Problem | None:
    """The problem whose task and settings are the row's."""
    for problem in suite.problems:
        task, settings = place_of(problem)
        if (task, settings_text(settings)) == (row.task, settings_text(row.settings)):
            return problem
    return None


def complete(suite: Suite, rows: Sequence[AgentRow]) -> bool:
    """Whether one agent's rows answer every problem with every seed, or one if none changes it."""
    for problem in suite.problems:
        seeds = {row.seed for row in rows if problem_of(suite, row) is problem}
        seeded = any(row.seeded for row in rows)
        if seeds != set(range(problem.seeds if seeded else 1)):
            return False
    return True
