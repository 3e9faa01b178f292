"""Finds networks, judges each by every proxy, trains it, and writes one row for it.

Whoever kills it loses the network it was at, up to its last epoch, and nothing else.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from torch import nn

from benchmarks.proxies.rows import Proxy, ProxyRow, read_rows, row_key
from benchmarks.proxies.specification import Allocation, Study
from benchmarks.reproduce.recover import recover
from benchmarks.reproduce.specification import Recovery
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import append_row, provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.metrics import Metrics, measure
from pruning_env.evaluation.weights import Weights
from pruning_env.tasks.data import Splits
from pruning_env.tasks.registry import get_task

__all__ = ["run"]

Keep = NDArray[np.bool_]


def run(
    study: Study,
    out: Path,
    command: str,
    *,
    data_root: str | None = None,
    device: str = "cpu",
    networks: int | None = None,
    progress: bool = False,
) -> Iterator[ProxyRow]:
    """Judge and train the networks that have no row in `out` yet; each row is written at once.

    Args:
        study: What to do.
        out: File of JSON lines. Checkpoints, and the teacher's answers, lie in a folder beside it.
        command: For the rows.
        data_root: Folder of the data sets; None for the default.
        device: Of everything.
        networks: At most so many; None for all.
        progress: Whether to show bars.

    A rule that cannot meet a budget is left out.

    Raises:
        FileNotFoundError: Data or weights are not there; the message says how to get them.
    """
    rows = read_rows(out)
    asked = [
        (each, row_key(study.task, each, study.training, study.training_seeds))
        for each in study.allocations
    ]
    missing = [each for each, key in asked if key not in rows]
    if not missing:
        return
    splits = get_task(study.task).load_data(data_root)
    bench = _Bench(study, splits, data_root, device, out.with_suffix(""), progress)
    for allocation in missing[:networks]:
        if (row := bench.row(allocation, command)) is not None:
            append_row(out, row)
            yield row


class _Bench:
    """Environments of one recovery each, made once, and the dense network."""

    def __init__(
        self,
        study: Study,
        splits: Splits,
        data_root: str | None,
        device: str,
        folder: Path,
        progress: bool,
    ) -> None:
        self._study, self._splits, self._folder = study, splits, folder
        self._device, self._progress = device, progress
        self._common: dict[str, Any] = {
            "task": study.task,
            "data_root": data_root,
            "device": device,
            "val_images": study.val_images,
        }
        self._judges = {
            name: self._make(**proxy)
            for name, proxy in study.proxies.items()
            if not isinstance(proxy, Recovery)
        }
        self._dense = get_task(study.task).model(None, data_root).to(device).eval()

    def row(self, allocation: Allocation, command: str) -> ProxyRow | None:
        """Everything about one network; None where nothing within the budget is found."""
        begun = time.perf_counter()
        keep = self._found(allocation)
        if keep is None:
            return None
        said = {name: self._said(name, keep) for name in self._judges}
        for name, proxy in self._study.proxies.items():
            if isinstance(proxy, Recovery):
                metrics, _ = self._trained(keep, proxy, allocation.seed, None)
                shown = proxy.epochs * (proxy.images or len(self._splits.search_train))
                judged = (proxy.epochs + 1) * len(self._splits.search_val)
                said[name] = Proxy(metrics.accuracy, shown + judged)
        certifier = next(iter(self._judges.values()))
        on_val, on_test = [], []
        checkpoints = [
            self._folder / f"{allocation.slug}_{seed}.checkpoint"
            for seed in range(self._study.training_seeds)
        ]
        for seed, checkpoint in enumerate(checkpoints):
            seed = allocation.seed + seed
            after, model = self._trained(keep, self._study.training, seed, checkpoint)
            on_val.append(after.accuracy)
            on_test.append(certifier.evaluator.certify(keep, Weights(model, keep)).accuracy)
        for checkpoint in checkpoints:
            checkpoint.unlink(missing_ok=True)
        return ProxyRow(
            task=self._study.task,
            allocation=allocation,
            training=self._study.training,
            counts=tuple(int(n) for n in certifier.graph.counts(keep)),
            proxies=said,
            val_accuracy=float(np.mean(on_val)),
            test_accuracy=float(np.mean(on_test)),
            training_seeds=self._study.training_seeds,
            minutes=(time.perf_counter() - begun) / 60,
            provenance=provenance(command, self._device),
        )

    def _make(self, **settings: Any) -> CNNPruneEnv:
        made = gym.make("CNNPrune-v0", **self._common, **settings).unwrapped
        assert isinstance(made, CNNPruneEnv)
        return made

    def _found(self, allocation: Allocation) -> Keep | None:
        """The channels that an agent keeps; None where it finds nothing within the budget."""
        made = gym.make(
            "CNNPrune-v0",
            **self._common,
            budget=allocation.budget,
            recovery=allocation.recovery,
            groups=allocation.groups,
            constraint="project",
            max_steps=1,
            reward="final",
        )
        search = get_agent(allocation.method).search
        result = search(made, allocation.evaluations, allocation.seed, self._progress).result
        if result is None:
            return None
        assert isinstance(made.unwrapped, CNNPruneEnv)
        return made.unwrapped.graph.whole_keep(result.state.keep)

    def _said(self, name: str, keep: Keep) -> Proxy:
        evaluator = self._judges[name].evaluator
        before = evaluator.image_passes
        accuracy = evaluator.evaluate(keep).accuracy
        return Proxy(accuracy, evaluator.image_passes - before)

    def _trained(
        self, keep: Keep, settings: Recovery, seed: int, checkpoint: Path | None
    ) -> tuple[Metrics, nn.Module]:
        """On all of search-val, after training; from where reconstruction leaves the weights."""
        judge = self._judges["reconstruct"].evaluator
        model = copy.deepcopy(judge.pruned_model(keep)).to(self._device)
        images = self._splits.normalised(self._splits.search_val, self._device)
        labels = self._splits.search_val.labels.to(self._device)

        def measured(network: nn.Module) -> Metrics:
            return measure(network, images, labels, judge.batch_size)

        recover(
            model,
            self._dense,
            self._splits,
            settings,
            measured,
            seed=seed,
            checkpoint=checkpoint,
            answers=self._folder / "answers",
            progress=self._progress,
        )
        return measured(model.eval()), model
