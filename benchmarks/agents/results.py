"""Table and figures of one set of rows, side by side. Reads rows only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.agents.figure import plot_agents
from benchmarks.agents.profiles import plot_profiles
from benchmarks.agents.tradeoff import plot_tradeoff
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.comparison.table import to_markdown
from pruning_env.files import atomic_write


def write_results(rows: Sequence[AgentRow], stem: Path) -> tuple[Path, ...]:
    """Write `stem`.md and the figures that it shows; equal rows make equal files.

    Args:
        rows: of any tasks, agents and seeds.
        stem: path of the files without suffix.

    Returns:
        The paths of all files, the table first.

    Raises:
        ValueError: when no row has a result.
    """
    drawings = {"": plot_agents, "-tradeoff": plot_tradeoff, "-profiles": plot_profiles}
    table = stem.with_name(f"{stem.name}.md")
    atomic_write(table, to_markdown(rows, stem.name))
    written = [table]
    for suffix, draw in drawings.items():
        written += draw(rows, stem.with_name(stem.name + suffix))
    return tuple(written)
