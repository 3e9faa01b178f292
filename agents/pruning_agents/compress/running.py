"""Going the way: stages one after another, those that are done left out, and how long each took.

What was asked for stands in the folder, so that a call with other arguments is refused by name.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pruning_agents.compress.stages import Stage
from pruning_env.files import append_line, atomic_write

__all__ = ["PLAN_FILE", "begun_with", "differing", "remember", "run_stages", "seconds_taken"]

PLAN_FILE = "plan.json"
_TIMES = "stages.jsonl"


def begun_with(out: Path) -> dict[str, Any] | None:
    """What `remember` has written into a folder; None where nothing was begun.

    Raises:
        ValueError: The file is damaged.
    """
    path = out / PLAN_FILE
    if not path.is_file():
        return None
    try:
        plan = json.loads(path.read_text())
        return {"arguments": dict(plan["arguments"]), "evaluations": int(plan["evaluations"])}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def remember(out: Path, arguments: Mapping[str, Any], evaluations: int) -> None:
    """Write down what is begun: arguments by name, and the evaluations that they came to."""
    plan = {"arguments": dict(arguments), "evaluations": evaluations}
    atomic_write(out / PLAN_FILE, json.dumps(plan, indent=1) + "\n")


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the arguments that are not what they were, in the order of `now`."""
    names = dict.fromkeys([*now, *before])
    # As they come back from a file: a tuple is a list there.
    kept = json.loads(json.dumps(dict(now)))
    return [name for name in names if before.get(name) != kept.get(name)]


def run_stages(
    stages: Sequence[Stage],
    out: Path,
    command: Callable[[Sequence[str]], int],
    tell: Callable[[str], None],
) -> int:
    """Run what is not done; the exit code, that of the first stage which has another than 0.

    Args:
        stages: In their order.
        out: Folder of everything, into which the seconds of each are written.
        command: Runs a command line, without `cnnprune`, and returns its exit code.
        tell: Is told which stage begins, and how.
    """
    for number, stage in enumerate(stages, start=1):
        head = f"[{number}/{len(stages) + 1}] {stage.name}: {stage.what}"
        if stage.done:
            tell(f"{head}: done already")
            continue
        words = stage.words()
        line = shlex.join(["cnnprune", *words])
        tell(f"{head}\n$ {line}")
        begun = time.perf_counter()
        if code := command(words):
            return code
        took = {"stage": stage.name, "seconds": round(time.perf_counter() - begun, 2)}
        append_line(out / _TIMES, json.dumps({**took, "command": line}))
    return 0


def seconds_taken(out: Path) -> dict[str, float]:
    """How long each stage took, by name; of one that was killed, since it was last begun."""
    path = out / _TIMES
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["stage"]: line["seconds"] for line in lines}
