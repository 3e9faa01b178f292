"""The script that evaluates every configuration and writes the table of `CNNPruneTabular-v0`.

    python -m pruning_env.tabular.enumerate --out digits-resnet8.npz

Judges every configuration of `digits-resnet8` on the grid of `--round-to` under both recoveries, on
search-val and on test. Test is open here, because the table's purpose is that everything in it is
known; its columns are for reports only. A run that is killed goes on where it was when the same
command is given again. At the end some configurations are judged by `Evaluator` as well, and the
table is refused if they differ. Knows nothing of episodes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import platform
import subprocess
import sys
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from tqdm import tqdm

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.machine import processor
from pruning_env.files import atomic_path
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.rounding import WidthUnits
from pruning_env.tabular.sweep import Sweep
from pruning_env.tabular.table import RECOVERIES, Results, Table, ranking_hash, save_table
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.fingerprints import splits_hash
from pruning_env.tasks.models import CifarResNet
from pruning_env.tasks.registry import WEIGHTS_FOLDER, get_task

__all__ = ["enumerate_table", "main"]

TASK = "digits-resnet8"

ROUND_TO = 5
"""Channels in a unit.

4 x 4 x 7 x 7 x 13 x 13 = 132,496 configurations. It is the largest unit that gives more than 40,000
(6 gives 39,204) and the smallest whose table stays below 3 MB (4 gives 262,144).
"""

IMPORTANCE = "taylor"
RECOVERY_IMAGES = 512  # the evaluator's default
CHECKED = 64  # configurations per recovery that the evaluator judges again
CHECK_SEED = 0
SAVE_SECONDS = 20.0
_COLUMNS = ("val_correct", "val_loss", "test_correct", "test_loss")


def enumerate_table(
    partial: Path, round_to: int = ROUND_TO, *, command: str = "", progress: bool = False
) -> Table:
    """Judge every configuration, or go on where `partial` ends.

    Args:
        partial: File that holds what is done while it is not all; removed by the caller.
        round_to: Channels in a unit.
        command: What was typed, for the provenance.
        progress: Whether to show a bar on the standard error stream.

    Raises:
        ValueError: `partial` is of another run, or the evaluator finds other results.
    """
    task = get_task(TASK)
    model, splits = task.model(), task.load_data(None)
    assert isinstance(model, CifarResNet)
    graph = ChannelGraph.trace(model, task.example_input())
    evaluators = {r: Evaluator(model, graph, splits, recovery=r) for r in RECOVERIES}
    scores = evaluators["bn"].scores(IMPORTANCE)
    rank = graph.rank(scores)
    units = WidthUnits(graph.sizes, round_to)
    widths = [
        np.minimum(np.arange(1, held + 2) * round_to, size)
        for held, size in zip(units.left(graph.sizes), graph.sizes, strict=True)
    ]
    made_from = {
        "graph_fingerprint": graph.fingerprint,
        "ranking_sha256": ranking_hash(rank),
        "weights_sha256": _sha256((WEIGHTS_FOLDER / f"{TASK}.safetensors").read_bytes()),
        "data_sha256": splits_hash(splits),
    }

    prefixes = list(itertools.product(*(w.tolist() for w in widths[:-1])))
    work = _Work(partial, json.dumps({**made_from, "round_to": round_to}), len(prefixes), widths)
    bar = tqdm(total=2 * len(prefixes), initial=work.done, disable=not progress, unit="prefix")
    with bar:
        for number, recovery in enumerate(RECOVERIES):
            sweep = _sweep(model, graph, rank, evaluators[recovery], splits)
            for place in range(work.done - number * len(prefixes), len(prefixes)):
                work.put(recovery, place, sweep.judge(prefixes[place], widths[-1]))
                bar.update()
    seconds = work.close()

    dense_val = evaluators["none"].dense
    full = graph.full()
    dense_test = evaluators["none"].certify(full)
    for columns in work.columns.values():
        # The environment judges the dense network without recovery, whatever follows.
        columns["val_correct"][-1, -1] = round(dense_val.accuracy * len(splits.search_val))
        columns["val_loss"][-1, -1] = dense_val.loss
        columns["test_correct"][-1, -1] = round(dense_test.accuracy * len(splits.test))
        columns["test_loss"][-1, -1] = dense_test.loss
    counts = np.stack(np.meshgrid(*widths, indexing="ij"), axis=-1).reshape(-1, len(widths))
    table = Table(
        round_to,
        graph.sizes,
        scores,
        np.asarray(graph.params_at(counts)),
        np.asarray(graph.macs_at(counts)),
        {r: Results(**{c: work.columns[r][c].ravel() for c in _COLUMNS}) for r in RECOVERIES},
        {
            "task": TASK,
            "command": command,
            "importance": IMPORTANCE,
            "recovery_images": RECOVERY_IMAGES,
            "splits": {
                "search_train": len(splits.search_train),
                "search_val": len(splits.search_val),
                "test": len(splits.test),
            },
            "test_split": "judged for every configuration and published on purpose; "
            "no reward, observation or info reads it",
            "seed": f"none needed: no step is random; the check below draws with seed {CHECK_SEED}",
            **made_from,
            "git_commit": _git_commit(),
            "versions": {
                "python": platform.python_version(),
                **{name: version(name) for name in ("numpy", "torch", "scikit-learn")},
            },
            "hardware": f"{platform.system()} {platform.machine()}, {processor()}, "
            f"{torch.get_num_threads()} torch threads",
            "seconds": round(seconds, 1),
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
        },
        graph.facts,
    )
    check = {r: _compare(table, r, evaluators[r], graph, rank) for r in RECOVERIES}
    table.provenance["check"] = check  # type: ignore[index]
    return table


class _Work:
    """Results so far, saved every now and then."""

    def __init__(self, path: Path, identity: str, prefixes: int, widths: list[np.ndarray]) -> None:
        self._path = path
        self._identity = identity
        self._prefixes = prefixes
        shape = (prefixes, len(widths[-1]))
        self.columns = {r: {c: np.zeros(shape) for c in _COLUMNS} for r in RECOVERIES}
        self.done = 0
        self._seconds = 0.0
        self._began = self._saved = time.monotonic()
        if path.exists():
            self._load()

    def put(self, recovery: str, place: int, judged: Any) -> None:
        for column in _COLUMNS:
            self.columns[recovery][column][place] = getattr(judged, column)
        self.done = RECOVERIES.index(recovery) * self._prefixes + place + 1
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self._save()

    def close(self) -> float:
        """Save; the seconds spent in all."""
        self._save()
        return self._seconds

    def _save(self) -> None:
        now = time.monotonic()
        self._seconds, self._began, self._saved = self._seconds + now - self._began, now, now
        arrays = {f"{r}_{c}": self.columns[r][c] for r in RECOVERIES for c in _COLUMNS}
        with atomic_path(self._path) as temporary:
            np.savez(
                temporary,
                identity=np.array(self._identity),
                done=np.array(self.done),
                seconds=np.array(self._seconds),
                **arrays,  # type: ignore[arg-type]
            )

    def _load(self) -> None:
        try:
            with np.load(self._path, allow_pickle=False) as archive:
                saved = {name: archive[name] for name in archive.files}
        except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(f"partial={self._path} is damaged, remove it: {error!r}") from error
        if saved.get("identity") != self._identity:
            raise ValueError(f"partial={self._path} is of another run; remove it or change --out")
        self.done, self._seconds = int(saved["done"]), float(saved["seconds"])
        for recovery, columns in self.columns.items():
            for column in columns:
                columns[column] = saved[f"{recovery}_{column}"]


def _sweep(
    model: CifarResNet, graph: ChannelGraph, rank: np.ndarray, evaluator: Evaluator, splits: Splits
) -> Sweep:
    def normalised(split: Split) -> torch.Tensor:
        images = splits.normalised(split, device="cpu", dtype=torch.float32)
        return images.contiguous(memory_format=torch.channels_last)

    calibration = splits.search_train.evenly_spaced(RECOVERY_IMAGES)
    val, labels = evaluator.images("search-val")
    return Sweep(
        model,
        graph,
        rank,
        evaluator.recovery,
        (normalised(calibration), val, normalised(splits.test)),
        labels,
        splits.test.labels,
        evaluator.batch_size,
    )


def _compare(
    table: Table, recovery: str, evaluator: Evaluator, graph: ChannelGraph, rank: np.ndarray
) -> dict[str, float]:
    """How far random entries are from what the evaluator gives; refuse more than rounding."""
    places = np.random.default_rng(CHECK_SEED).integers(table.size - 1, size=CHECKED)
    keeps = [graph.keep_top(rank, counts) for counts in table.counts(places)]
    judged = evaluator.evaluate_many(keeps)
    tested = [evaluator.certify(keep) for keep in keeps]
    results = table.results[recovery]
    images = {"val": table.val_images, "test": table.test_images}
    deviation: dict[str, float] = {"configurations": CHECKED}
    for split, metrics in (("val", judged), ("test", tested)):
        right = np.array([round(m.accuracy * images[split]) for m in metrics])
        loss = np.array([m.loss for m in metrics])
        stored = getattr(results, f"{split}_correct")[places]
        deviation[f"{split}_images"] = int(np.abs(right - stored).max())
        stored = getattr(results, f"{split}_loss")[places]
        deviation[f"{split}_loss_relative"] = float(np.abs(loss / stored - 1).max())
        if deviation[f"{split}_images"] > 1 or deviation[f"{split}_loss_relative"] > 1e-3:
            raise ValueError(f"recovery {recovery!r}: the evaluator's results differ: {deviation}")
    return deviation


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_commit() -> str:
    """Of the checkout that the script lies in; with "+" where it has other or more files."""
    said = []
    for command in (["rev-parse", "HEAD"], ["status", "--porcelain"]):
        try:
            done = subprocess.run(
                ["git", *command],
                cwd=Path(__file__).parent,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return "unknown"
        said.append(done.stdout.strip())
    commit, changes = said
    return commit + ("+" if changes else "")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m pruning_env.tabular.enumerate",
        description=f"Judge every configuration of {TASK} on a grid of widths; resumes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--round-to", type=int, default=ROUND_TO, help="channels in a unit")
    parser.add_argument("--out", type=Path, default=Path("runs", "tabular", f"{TASK}.npz"))
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # kernels round by how they share out the work
    partial = given.out.with_suffix(".part.npz")
    command = " ".join(["python -m pruning_env.tabular.enumerate", *arguments])
    try:
        table = enumerate_table(partial, given.round_to, command=command, progress=True)
    except ValueError as error:
        parser.error(str(error))
    save_table(table, given.out)
    partial.unlink()
    size = os.path.getsize(given.out) / 1e6
    Console().print(f"{table.size:,} configurations -> {given.out} ({size:.2f} MB)", soft_wrap=True)


if __name__ == "__main__":
    main()
