"""`python -m benchmarks soak`: very many steps, to see that nothing grows and nothing drifts.

Random actions are taken in one process; at its end the first steps are taken again, by a new
environment and by the one that has gone the whole way, and must give the same bits. Resident memory
is read at equal distances, after a collection and after the allocator has given back what is free.
Knows no agents.
"""

from __future__ import annotations

import argparse
import ctypes
import dataclasses
import gc
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents.search.rows import Provenance, provenance
from pruning_env.files import append_line, atomic_write

#: What is soaked.
ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "CNNPrune-v0": {"recovery": "none"},
    "CNNPruneTabular-v0": {},
}

CYCLE = {"CNNPrune-v0": 2_000}
"""Steps after which the same actions come again, from a reset: fewer networks than the evaluator
remembers, as judging 100,000 of them anew would take an hour. What is left out never repeats."""

REPLAYED = 1_000
"""Steps that are taken again at the end."""

WARM = 0.2
"""Share of the steps after which caches have filled up and memory must stay flat."""

BOUND_MIB = 20.0
"""Most MiB that resident memory may rise by, from then on to the end, on the fitted line.

A thousand steps that each kept one pruned network of 100 KB would take 100.
"""


@dataclass(frozen=True)
class SoakRow:
    """One environment, soaked.

    Attributes:
        environment: registered id.
        settings: keyword arguments it was made with.
        steps: taken, episodes begun anew as they ended.
        episodes: that ended.
        evaluations: that the environment counted.
        seed: of the actions.
        replayed: steps that were taken again.
        same: whether both replays gave the same bits.
        digest: SHA-256 of observations, rewards and infos of the first `replayed` steps.
        memory_mib: resident memory at equal distances, the first before the first step.
        slope_mib: MiB per 1,000 steps, least squares over what follows the first `WARM`.
        grown_mib: the same over all those steps; at most `BOUND_MIB`.
        seconds: of all steps, replays left out.
        provenance: how, where and when.
    """

    environment: str
    settings: dict[str, Any]
    steps: int
    episodes: int
    evaluations: int
    seed: int
    replayed: int
    same: bool
    digest: str
    memory_mib: tuple[float, ...]
    slope_mib: float
    grown_mib: float
    seconds: float
    provenance: Provenance

    @property
    def passed(self) -> bool:
        """Whether nothing grew and nothing drifted."""
        return self.same and self.grown_mib <= BOUND_MIB

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> SoakRow:
        """The row that `to_json` wrote."""
        data = json.loads(line)
        data |= {"memory_mib": tuple(data["memory_mib"])}
        return cls(**(data | {"provenance": Provenance(**data["provenance"])}))


def add_soak_command(commands: Any) -> None:
    """Add `soak` to the subcommands of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "soak", help="very many steps: memory stays flat, the first steps repeat themselves"
    )
    parser.add_argument("--steps", type=int, default=100_000, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the actions (default: %(default)s)")
    parser.add_argument(
        "--environments", nargs="+", choices=tuple(ENVIRONMENTS), default=tuple(ENVIRONMENTS)
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/soak.jsonl"), help="default: %(default)s"
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    torch.set_num_threads(1)
    origin = provenance(command)
    rows = []
    for environment in options["environments"]:
        row = soak(environment, options["steps"], options["seed"], origin)
        append_line(options["out"], row.to_json())
        console.print(sentence(row), highlight=False, soft_wrap=True)
        rows.append(row)
    written = options["out"].read_text(encoding="utf-8").splitlines()
    # Of several rows of one environment the last counts.
    last = {row.environment: row for row in map(SoakRow.from_json, written)}
    atomic_write(options["out"].with_suffix(".md"), to_markdown(list(last.values())))
    return 0 if all(row.passed for row in rows) else 1


def soak(environment: str, steps: int, seed: int, origin: Provenance, samples: int = 50) -> SoakRow:
    """Take the steps, measure memory at so many equal distances, take the first steps again.

    Raises:
        ValueError: fewer steps than `REPLAYED`.
    """
    if steps < REPLAYED:
        raise ValueError(f"steps={steps}; at least {REPLAYED} are needed, which are replayed")
    settings = ENVIRONMENTS[environment]
    env = gym.make(environment, disable_env_checker=True, **settings)
    episodes, digest, first = 0, hashlib.sha256(), ""
    memory = [resident_mib()]
    begun, aside = time.perf_counter(), 0.0
    taken = _steps(env, steps, seed, CYCLE.get(environment, steps))
    for number, (told, ended) in enumerate(taken, start=1):
        episodes += ended
        if number <= REPLAYED:
            digest.update(told)
        if number == REPLAYED:
            first = digest.hexdigest()
        if number % max(steps // samples, 1) == 0:
            pause = time.perf_counter()
            memory.append(resident_mib())
            aside += time.perf_counter() - pause
    seconds = time.perf_counter() - begun - aside
    unwrapped: Any = env.unwrapped
    evaluations = int(unwrapped.evaluations)
    fresh = gym.make(environment, disable_env_checker=True, **settings)
    slope = slope_of(memory, steps)
    return SoakRow(
        environment=environment,
        settings=settings,
        steps=steps,
        episodes=episodes,
        evaluations=evaluations,
        seed=seed,
        replayed=REPLAYED,
        same=digest_of(env, seed) == digest_of(fresh, seed) == first,
        digest=first,
        memory_mib=tuple(round(each, 2) for each in memory),
        slope_mib=1e3 * slope,
        grown_mib=slope * steps * (1 - WARM),
        seconds=seconds,
        provenance=origin,
    )


def digest_of(env: gym.Env, seed: int) -> str:
    """SHA-256 of what the first `REPLAYED` steps give."""
    digest = hashlib.sha256()
    for told, _ in _steps(env, REPLAYED, seed, REPLAYED):
        digest.update(told)
    return digest.hexdigest()


def _steps(env: gym.Env, steps: int, seed: int, cycle: int) -> Iterator[tuple[bytes, bool]]:
    """What each step gives, as bytes, and whether it ended an episode."""
    shape = env.action_space.shape
    for number in range(steps):
        if number % cycle == 0:
            rng = np.random.default_rng(seed)
            env.reset(seed=seed)
        action = rng.uniform(-1, 1, shape).astype(np.float32)
        observation, reward, terminated, truncated, info = env.step(action)
        values = {name: value for name, value in info.items() if name != "episode"}
        yield (
            observation.tobytes() + repr((reward, terminated, truncated, values)).encode(),
            (terminated or truncated),
        )
        if terminated or truncated:
            env.reset()


def resident_mib() -> float:
    """Resident memory of this process once everything free is given back, in MiB (Linux)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # not glibc: what is free still counts
        pass
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 2**10
    raise RuntimeError("/proc/self/status has no VmRSS; the soak needs Linux")


def slope_of(memory: list[float], steps: int) -> float:
    """MiB per step of the line through what follows the first `WARM` of the steps."""
    places: NDArray[np.float64] = np.linspace(0, steps, len(memory))
    late = places >= WARM * steps
    return float(np.polyfit(places[late], np.array(memory)[late], 1)[0])


def sentence(row: SoakRow) -> str:
    """What a row says, in one line."""
    return (
        f"{row.environment}: {row.steps:,} steps in {row.seconds:.0f} s, "
        f"{row.slope_mib:+.4f} MiB per 1,000 steps, first {row.replayed:,} "
        f"{'the same' if row.same else 'NOT the same'}: {'passed' if row.passed else 'FAILED'}"
    )


def to_markdown(rows: list[SoakRow]) -> str:
    """Rows as a table, and what its columns mean below it."""
    titles = (
        *("environment", "steps", "episodes", "evaluations", "µs per step"),
        *("MiB first", "MiB warm", "MiB last", "MiB per 1,000 steps", "replay"),
    )
    lines = [titles, ("---", *["---:"] * (len(titles) - 1))]
    for row in rows:
        warm = row.memory_mib[round(WARM * (len(row.memory_mib) - 1))]
        lines.append(
            (
                *(row.environment, f"{row.steps:,}", f"{row.episodes:,}", f"{row.evaluations:,}"),
                f"{1e6 * row.seconds / row.steps:,.0f}",
                *(f"{each:.1f}" for each in (row.memory_mib[0], warm, row.memory_mib[-1])),
                f"{row.slope_mib:+.4f}",
                "same" if row.same else "NOT the same",
            )
        )
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    where = "; ".join(dict.fromkeys(row.provenance.hardware for row in rows))
    return (
        f"{table}\n\nRandom actions in one process. Memory is resident, after a collection and "
        f"`malloc_trim`: before the first step, after {WARM:.0%} of the steps (caches are full), "
        "and at the end; the slope is that of the least-squares line from there on, and may rise "
        f"by at most {BOUND_MIB:g} MiB in all. Replay: the first {REPLAYED:,} steps again, by the "
        "same environment and by a new one; observations, rewards and infos bit for bit. On "
        f"{where}.\n"
    )
