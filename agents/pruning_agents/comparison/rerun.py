"""Searches made again with their seed: does the same row come out?

A replay of a row's counts cannot see how a search came to them. Here the search of a registered
agent runs once more, where that is cheap: on the solved tier, whose evaluations are look-ups.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

from tqdm import tqdm

from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.replay import Verdict
from pruning_agents.comparison.rows import TABULAR, AgentRow, settings_text
from pruning_agents.search.registry import agent_names


def rerun(verdicts: Sequence[Verdict], seeds: int, progress_bar: bool = False) -> list[Verdict]:
    """The same verdicts, some with `again`: of each agent on each kind of solved tier.

    Args:
        verdicts: of `replay`.
        seeds: rows of each that are run again, at most; the first that replay.
        progress_bar: whether to show one.
    """
    done: Counter[tuple[str, str, int, str | None]] = Counter()
    told = []
    for verdict in tqdm(verdicts, desc="run again", unit="row", disable=not progress_bar):
        row = verdict.row
        place = row.agent, settings_text(row.settings), row.allowed, row.suite
        known = row.task == TABULAR and row.agent in agent_names()
        if verdict.replays and known and done[place] < seeds:
            done[place] += 1
            verdict = dataclasses.replace(verdict, again=comes_out_again(row))
        told.append(verdict)
    return told


def comes_out_again(row: AgentRow) -> bool:
    """Whether the row's search, made once more, spends and finds the same."""
    cell = Cell(row.task, row.settings, row.agent, row.seed, row.allowed)
    found = run_cell(cell, row.provenance)
    return all(
        getattr(found, name) == getattr(row, name)
        for name in ("failed", "spent", "history", "counts")
    )
