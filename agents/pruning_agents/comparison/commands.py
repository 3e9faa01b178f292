"""The arguments of `compare`, `validate` and `leaderboard`; the work is done elsewhere."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm import tqdm

from pruning_agents.comparison.compare import compare
from pruning_agents.comparison.leaderboard import to_markdown
from pruning_agents.comparison.replay import Verdict, replay
from pruning_agents.comparison.rows import AgentRow, read_rows
from pruning_env.files import atomic_write

LEADERBOARD = Path("benchmarks/LEADERBOARD.md")


def add_checks_commands(commands: Any) -> None:
    """Add them to the subcommands of a parser; each sets `run(options, command, console)`."""
    comparison = commands.add_parser(
        "compare",
        help="two files of rows, pair by pair: the difference and its interval",
        description="Paired differences between rows of the same task, settings, seed and "
        "evaluations, with 95 %% bootstrap intervals, and what may be said of them.",
    )
    comparison.add_argument("first", type=Path, metavar="A.jsonl")
    comparison.add_argument("second", type=Path, metavar="B.jsonl")
    comparison.add_argument(
        "--agents",
        type=_two,
        metavar="X,Y",
        help="X of the first file against Y of the second (default: every agent that is in both; "
        "where each file has one agent, these two)",
    )
    comparison.add_argument(
        "--at",
        type=_positive,
        metavar="N",
        help="compare incumbents after N evaluations (default: all that were allowed)",
    )
    comparison.set_defaults(run=_compare)

    validation = commands.add_parser(
        "validate",
        help="replay rows from their channel counts; exit code 1 if one does not come out",
        description="Rebuild each row's network from its channel counts, judge it again and check "
        "accuracies, scores, parameters, MACs, hashes of weights and data, and that the pruned "
        "network says what the masked one says. Opens the test split for rows with a test "
        "accuracy. What rows cannot prove is how they were found.",
    )
    validation.add_argument("rows", type=Path, nargs="+", metavar="ROWS.jsonl")
    validation.set_defaults(run=_validate)

    board = commands.add_parser(
        "leaderboard", help="rank agents by task, from rows that replay and no others"
    )
    board.add_argument("rows", type=Path, nargs="+", metavar="ROWS.jsonl")
    board.add_argument("--out", type=Path, default=LEADERBOARD, help="default: %(default)s")
    board.set_defaults(run=_leaderboard)


def _compare(options: dict[str, Any], command: str, console: Console) -> int:
    first, second = (_rows([options[name]]) for name in ("first", "second"))
    labels = (options["first"].name, options["second"].name)
    if labels[0] == labels[1]:
        labels = (str(options["first"]), str(options["second"]))
    for each in compare(first, second, options["agents"], options["at"], labels):
        _say(console, str(each))
    _say(
        console,
        "Intervals: 95 % percentile bootstrap over pairs, seeded, each on its own: nothing is "
        "corrected for several comparisons. Not distinguishable does not mean equal.",
    )
    return 0


def _validate(options: dict[str, Any], command: str, console: Console) -> int:
    verdicts = _replayed(_rows(options["rows"]))
    for verdict in verdicts:
        row = verdict.row
        for problem in verdict.problems:
            _say(console, f"{row.agent}, {row.task}, seed {row.seed}: {problem}")
    refused = sum(bool(verdict.problems) for verdict in verdicts)
    notes = [verdict.note for verdict in verdicts if verdict.note and not verdict.problems]
    for note in dict.fromkeys(notes):
        _say(console, f"{notes.count(note)} rows: {note}")
    _say(console, f"{sum(v.replays for v in verdicts)} of {len(verdicts)} rows replay")
    return 1 if refused else 0


def _leaderboard(options: dict[str, Any], command: str, console: Console) -> int:
    verdicts = _replayed(_rows(options["rows"]))
    atomic_write(options["out"], to_markdown(verdicts, command))
    refused = sum(bool(verdict.problems) for verdict in verdicts)
    _say(console, f"Written to {options['out']}; {refused} rows left out that do not replay")
    return 0


def _replayed(rows: Sequence[AgentRow]) -> list[Verdict]:
    return list(tqdm(replay(rows), total=len(rows), desc="replay", unit="row"))


def _rows(paths: Sequence[Path]) -> list[AgentRow]:
    rows: list[AgentRow] = []
    for path in paths:
        found = list(read_rows(path).values())
        if not found:
            raise ValueError(f"{path} holds no rows" if path.exists() else f"{path} is no file")
        rows += found
    return rows


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _two(text: str) -> tuple[str, str]:
    names = [name.strip() for name in text.split(",")]
    if len(names) != 2 or not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} is not two agents such as cem,rl-pruner")
    return names[0], names[1]


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)
