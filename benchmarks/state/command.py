"""`python -m benchmarks state`: how much a policy gains by seeing where it is."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.state.policies import Answer, Judge, bound, constant, schedule, state_dependent
from benchmarks.state.rows import StateRow, to_markdown
from benchmarks.state.world import Case, World
from pruning_agents.search.rows import Provenance, provenance
from pruning_env.files import atomic_write

LIMIT = 0.25
LIMITS = (0.15, 0.2, 0.25, 0.35, 0.5)
STARTS = 64
_MOST_STEPS = 4  # before the start; more would leave little to decide


def add_state_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "state",
        help="does state help? the best fixed sequence against the best policy, on the solved tier",
    )
    parser.add_argument(
        "--channels-per-step",
        type=_shares,
        default=(0.05, 0.1),
        metavar="A,B",
        help="share of all channels that a step removes (default: 0.05,0.1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of starts and search (default: 0)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/state.jsonl"),
        help="rows; the table goes beside it (default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    origin = provenance(command)
    rows = []
    for share in options["channels_per_step"]:
        for row in measure(share, options["seed"], origin):
            rows.append(row)
            console.print(
                f"{row.scenario}, {share:g}, {row.policies}: {row.regret:.3f}", highlight=False
            )
    out: Path = options["out"]
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, "".join(row.to_json() + "\n" for row in rows))
    atomic_write(out.with_suffix(".md"), to_markdown(rows))
    return 0


def scenarios(world: World, seed: int) -> dict[str, tuple[Case, ...]]:
    """The cases of each scenario; none is over before it begins."""
    drawn = world.partial_prunings(4 * STARTS, _MOST_STEPS, seed)
    starts = drawn[~world.over(LIMIT)[drawn]][:STARTS].tolist()
    return {
        f"one start, params ≤ {LIMIT:g}": (Case(world.dense, LIMIT),),
        f"one start, {len(LIMITS)} limits": tuple(Case(world.dense, limit) for limit in LIMITS),
        f"{len(starts)} starts, params ≤ {LIMIT:g}": tuple(Case(start, LIMIT) for start in starts),
    }


def measure(channels_per_step: float, seed: int, origin: Provenance) -> Iterator[StateRow]:
    """A row for each scenario and class of policies."""
    world = World(channels_per_step)
    for scenario, cases in scenarios(world, seed).items():
        judge = Judge(world, cases)
        classes: dict[str, Callable[[Judge], Answer]] = {
            "constant": constant,
            "by step": lambda judge: schedule(judge, False, np.random.default_rng(seed)),
            "by progress": lambda judge: schedule(judge, True, np.random.default_rng(seed)),
            "state": state_dependent,
            "any split": bound,
        }
        for name, best in classes.items():
            begin = time.perf_counter()
            answer = best(judge)
            seconds = time.perf_counter() - begin
            yield StateRow(
                scenario,
                len(cases),
                channels_per_step,
                name,
                answer.regret,
                answer.exact,
                seconds,
                seed,
                origin,
            )


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not A,B such as 0.05,0.1") from None
