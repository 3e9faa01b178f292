"""Result rows: what one run found, how it was run, and on what; kept as JSON lines.

A row holds everything that a table or figure needs and everything that is needed to run it again.
This module knows the fields and the file; it neither searches nor prints.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from pruning_env.evaluation.machine import processor
from pruning_env.files import append_line

#: Distributions whose versions a row records.
_RECORDED = ("pruning-env", "torch", "gymnasium", "stable-baselines3", "numpy")

#: Fields that rows did not always have.
_LATER = (
    *("image_passes", "allowed", "ended", "latency_runtime", "latency_threads"),
    *("latency_rounds", "latency_interval", "latency_predicted"),
)

_Key = TypeVar("_Key")
_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Provenance:
    """Where, when and by what a row was made.

    Attributes:
        command: what was typed.
        created: UTC time, ISO 8601.
        versions: of Python and the packages that matter.
        hardware: processor, cores, threads of torch, and accelerator if one was used.
        commit: git commit of this source tree, "-dirty" appended when files differ from it; None
            when the code does not run from a checkout.
    """

    command: str
    created: str
    versions: dict[str, str]
    hardware: str
    commit: str | None


@dataclass(frozen=True)
class ResultRow:
    """One pruned model and the search that found it. Accuracies are in [0, 1].

    Attributes:
        agent: registered name of the method; "dense" for the unpruned model.
        task: registered name.
        seed: seed of the search.
        budget: limits, as ratios to the dense model.
        settings: further keyword arguments of the environment.
        evaluations: evaluations the search spent.
        history: (evaluations, best feasible search-val accuracy) at each improvement.
        groups: (L,) names of the channel groups.
        sizes: (L,) channels of each group in the dense model.
        counts: (L,) channels kept.
        val_accuracy: on search-val, after recovery.
        dense_val_accuracy: of the dense model on search-val.
        val_seen: whether the dense weights were trained on search-val images.
        test_accuracy: on test; None when test was not opened.
        dense_test_accuracy: of the dense model on test; None when test was not opened.
        params: parameters of the pruned model.
        params_ratio: to the dense model.
        macs: multiply-accumulates of convolutions and linear layers, per image.
        macs_ratio: to the dense model.
        latency_ms: median milliseconds per batch: of the processor where one thread of a CPU
            computes, else, and in older rows, of the wall clock.
        dense_latency_ms: of the dense model, which took turns with it.
        latency_ratio: latency_ms / dense_latency_ms.
        latency_batch: images per timed batch.
        wall_seconds: of the search.
        provenance: how, where and when.
        image_passes: images that pruned networks were shown during the search; None in rows that
            were written before they were counted.
        allowed: evaluations that the search might spend; None in older rows, or without a limit.
        ended: why the search ended, of `result.ENDINGS`; None in older rows, or where nobody says.
        latency_runtime: what ran the models, of `RUNTIMES`; None in older rows: "eager".
        latency_threads: of the processor; None in older rows.
        latency_rounds: timed rounds; None in older rows.
        latency_interval: ends of what holds the true median ratio with 95 % confidence, by wall or
            processor time, whichever ratio is larger; None in older rows, and of the dense model.
        latency_predicted: what the search took the ratio for, by a latency table; None without one.
    """

    agent: str
    task: str
    seed: int
    budget: dict[str, float]
    settings: dict[str, Any]
    evaluations: int
    history: tuple[tuple[int, float], ...]
    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    counts: tuple[int, ...]
    val_accuracy: float
    dense_val_accuracy: float
    val_seen: bool
    test_accuracy: float | None
    dense_test_accuracy: float | None
    params: int
    params_ratio: float
    macs: int
    macs_ratio: float
    latency_ms: float
    dense_latency_ms: float
    latency_ratio: float
    latency_batch: int
    wall_seconds: float
    provenance: Provenance
    image_passes: int | None = None
    allowed: int | None = None
    ended: str | None = None
    latency_runtime: str | None = None
    latency_threads: int | None = None
    latency_rounds: int | None = None
    latency_interval: tuple[float, float] | None = None
    latency_predicted: float | None = None

    def to_json(self) -> str:
        """One line of JSON without a line break. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> ResultRow:
        """The row that `to_json` wrote.

        Raises:
            ValueError: if the line is no JSON object with exactly the fields of a row, or says what
                cannot be, as when it was altered.
        """
        data = json.loads(line)
        fields = {field.name for field in dataclasses.fields(cls)}
        if isinstance(data, dict):
            data = dict.fromkeys(_LATER) | data
        if not isinstance(data, dict) or set(data) != fields:
            odd = set(data) ^ fields if isinstance(data, dict) else fields
            raise ValueError(f"not a result row; missing or unknown fields: {sorted(odd)}")
        try:
            data["provenance"] = Provenance(**data["provenance"])
            data["history"] = tuple((int(spent), float(best)) for spent, best in data["history"])
            for name in ("groups", "sizes", "counts"):
                data[name] = tuple(data[name])
            if data["latency_interval"] is not None:
                low, high = data["latency_interval"]
                data["latency_interval"] = (float(low), float(high))
            row = cls(**data)
            for name in ("dense_val_accuracy", "test_accuracy", "dense_test_accuracy"):
                _check_accuracy(name, getattr(row, name))
            check_found(row.history, row.evaluations, row.val_accuracy)
            widths = list(zip(row.counts, row.sizes, row.groups, strict=True))
            if not all(1 <= count <= size for count, size, _ in widths):
                raise ValueError(f"counts={list(row.counts)}; allowed: 1 to {list(row.sizes)}")
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a result row: {error}") from error
        return row


def check_found(
    history: Sequence[tuple[int, float]], evaluations: int, accuracy: float | None
) -> None:
    """Refuse what no search can have found, so that an altered row does not reach a table.

    This finds mistakes and clumsy hands; whoever can write a row can write a possible one.

    Args:
        history: (evaluations, best accuracy so far) at each improvement.
        evaluations: spent by the search.
        accuracy: of what it found; None if nothing.

    Raises:
        ValueError: naming what is wrong.
    """
    _check_accuracy("val_accuracy", accuracy)
    for _, best in history:
        _check_accuracy("history", best)
    spent = [at for at, _ in history]
    if spent != sorted(spent) or not 0 <= evaluations or (spent and spent[-1] > evaluations):
        raise ValueError(f"history={list(history)} does not fit {evaluations} evaluations")
    found = [best for _, best in history]
    if found != sorted(found) or (found and found[-1] != accuracy):
        raise ValueError(f"history={list(history)} does not rise to val_accuracy={accuracy}")


def _check_accuracy(name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        raise ValueError(f"{name}={value!r}; allowed: a number from 0 to 1")


class _Line(Protocol):
    """What has a line to append."""

    def to_json(self) -> str: ...


def append_row(path: str | os.PathLike[str], row: _Line) -> None:
    """Append a row to a JSON-lines file, made if needed.

    Whole or not at all, by any number of processes: see `append_line`.
    """
    append_line(path, row.to_json())


def parsed_rows(path: str | os.PathLike[str], parse: Callable[[str], _Row]) -> Iterator[_Row]:
    """The rows of a JSON-lines file, in order; lines cut off by a kill are left out with a warning.

    Args:
        path: what `append_row` wrote.
        parse: makes a row of a line; raises `json.JSONDecodeError` if it is not JSON, and another
            ValueError if it is no row.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if it is complete JSON but no row.
    """
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            yield parse(line)
        except json.JSONDecodeError:
            warnings.warn(f"{path}:{number} is not complete and was left out", stacklevel=2)
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error


def keyed_rows(
    path: str | os.PathLike[str], parse: Callable[[str], _Row], key: Callable[[_Row], _Key]
) -> dict[_Key, _Row]:
    """Rows by key, the last of each; nothing when there is no such file. See `parsed_rows`.

    Raises:
        ValueError: naming the line that is complete and no row.
    """
    if not Path(path).exists():
        return {}
    return {key(row): row for row in parsed_rows(path, parse)}


def read_rows(path: str | os.PathLike[str]) -> tuple[ResultRow, ...]:
    """The result rows of a JSON-lines file; see `parsed_rows`."""
    return tuple(parsed_rows(path, ResultRow.from_json))


def provenance(command: str, device: str = "cpu") -> Provenance:
    """Describe this process: `command` is what the user typed, `device` what torch runs on."""
    return Provenance(
        command=command,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=_versions(_RECORDED),
        hardware=_hardware(device),
        commit=_commit(),
    )


def _versions(names: Iterable[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def _hardware(device: str) -> str:
    described = f"{processor()}, {torch.get_num_threads()} threads"
    if torch.device(device).type == "cuda":
        described += f", {torch.cuda.get_device_name(device)}"
    return described


def _commit() -> str | None:
    """The commit that this file is part of; an installed copy inside some checkout has none."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)
        dirty = "-dirty" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None
