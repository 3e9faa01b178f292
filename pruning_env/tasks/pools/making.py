"""Makes a pool: draws networks, trains them on the digits, traces them, and writes them down.

Networks learn from search-train only, the last epoch counts, and which of them are kept is decided
on search-train, too: search-val has no part in the weights. Knows nothing of environments.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from pruning_env.arguments import check_count
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Splits, load_digits8
from pruning_env.tasks.pools.network import INPUT_SHAPE, PoolNetwork, build
from pruning_env.tasks.pools.specification import FAMILIES, Specification, draw
from pruning_env.tasks.pools.storage import Pool, PooledNetwork, packed, write_pool
from pruning_env.tasks.train import Recipe, evaluate, train

__all__ = ["PARAMETERS", "PoolSettings", "make_pool"]

PARAMETERS = (3_000, 10_000)
"""Fewest and most parameters of a network; what is drawn outside is drawn again."""

LEAST_TRAINED = 0.95
"""Accuracy on search-train that a network must reach, or another is drawn in its place."""


@dataclass(frozen=True)
class PoolSettings:
    """What a pool is made of; the same settings make the same networks, up to rounding.

    Attributes:
        networks: How many.
        families: Which take turns.
        seed: Of the draws. Two pools of different seeds have no network in common.
        epochs: Passes over search-train.
        batch_size: Images in a step.
        learning_rate: At its peak.
    """

    networks: int = 64
    families: tuple[str, ...] = FAMILIES
    seed: int = 0
    epochs: int = 8
    batch_size: int = 32
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        check_count("networks", self.networks)
        check_count("seed", self.seed, 0)
        unknown = [family for family in self.families if family not in FAMILIES]
        if unknown or not self.families:
            raise ValueError(
                f"families={self.families} is not allowed; give some of {', '.join(FAMILIES)}"
            )
        self.recipe(0)

    def recipe(self, seed: int) -> Recipe:
        """How a network is trained."""
        return Recipe(
            seed=seed,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
        )


def make_pool(path: Path, settings: PoolSettings, command: str, *, progress: bool = False) -> Pool:
    """Make the pool whose JSON file is `path`, or go on with one that was begun.

    It is written after each network, so that nothing is lost when it is stopped. Settings that ask
    for more networks than there are add to them: those of a smaller pool are the first of a larger.

    Args:
        path: Ends in `.json`.
        settings: What it is made of.
        command: What was typed, for the record.
        progress: Whether to show a bar.

    Raises:
        ValueError: `path` is no such path, or holds a pool of other settings.
    """
    if path.suffix != ".json":
        raise ValueError(f"path={str(path)!r} is not allowed; a pool's file ends in .json")
    asked = {**asdict(settings), "families": list(settings.families)}
    about = {"settings": asked, "command": command, **_machine()}
    networks: list[PooledNetwork] = []
    if path.is_file():
        begun = Pool(path)
        found = begun.about.get("settings")
        if not isinstance(found, dict) or {**found, "networks": settings.networks} != asked:
            raise ValueError(
                f"path={str(path)!r} holds a pool of other settings, {found}; give another path"
            )
        networks = [begun.stored(index) for index in range(len(begun))]
    splits = load_digits8()
    bar = tqdm(total=settings.networks, initial=len(networks), desc="pool", disable=not progress)
    with bar:
        while len(networks) < settings.networks:
            networks.append(_trained(settings, len(networks), splits))
            write_pool(path, about, networks)
            bar.update()
            bar.set_postfix(test=f"{100 * networks[-1].row['test_accuracy']:.1f} %")
    return Pool(path)


def _trained(settings: PoolSettings, index: int, splits: Splits) -> PooledNetwork:
    """Network `index`: the first of its own stream of draws that has the size and learns."""
    family = settings.families[index % len(settings.families)]
    for spec, network in _candidates(settings.seed, index, family):
        started = time.perf_counter()
        try:
            train(network, splits, settings.recipe(spec.seed), choose_epoch=False)
        except FloatingPointError:
            continue
        seconds = round(time.perf_counter() - started, 1)
        network.half().float()  # what is stored is what is judged
        reached, _ = evaluate(network, splits, splits.search_train)
        if reached < LEAST_TRAINED:
            continue
        example = torch.randn((1, *INPUT_SHAPE), generator=torch.Generator().manual_seed(0))
        graph = ChannelGraph.trace(network.eval(), example)
        about: dict[str, Any] = {
            "train_accuracy": reached,
            "val_accuracy": evaluate(network, splits, splits.search_val)[0],
            "test_accuracy": evaluate(network, splits, splits.test)[0],
            "seconds": seconds,
        }
        return packed(spec, network, graph, about)
    raise AssertionError("there is always another candidate")


def _candidates(seed: int, index: int, family: str) -> Iterator[tuple[Specification, PoolNetwork]]:
    """Untrained networks of a family and of the right size, without end."""
    rng = np.random.default_rng((seed, index))
    while True:
        spec = draw(rng, [family])
        network = build(spec)
        if PARAMETERS[0] <= sum(p.numel() for p in network.parameters()) <= PARAMETERS[1]:
            yield spec, network


def _machine() -> dict[str, str]:
    threads = f"{os.cpu_count()} CPUs, {torch.get_num_threads()} torch threads"
    return {
        "torch": torch.__version__,
        "hardware": f"{platform.system()} {platform.machine()}, {threads}",
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }
