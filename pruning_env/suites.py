"""Frozen lists of problems, so that a paper can say "CNNPrune solved-v1".

A suite never changes: a test pins its hash, and another list is another version. What it does not
spell out is a default of the environment's id, which changes with the id's version only. Knows
nothing of environments, agents or rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["SUITES", "Problem", "Suite", "get_suite"]


@dataclass(frozen=True)
class Problem:
    """One environment, and how much a search may spend on it.

    Attributes:
        env_id: of `gym.make`.
        kwargs: further arguments of it.
        evaluations: that a search may spend, counted by the environment.
        seeds: searches, of the seeds from 0 on.
        weights_sha256: of the dense network, as rows have it in their `origin`.
        data_sha256: of all images and labels, likewise.
    """

    env_id: str
    kwargs: Mapping[str, Any]
    evaluations: int
    seeds: int
    weights_sha256: str
    data_sha256: str


@dataclass(frozen=True)
class Suite:
    """Problems that are solved together.

    Attributes:
        name: with a version, such as "solved-v1".
        summary: what is asked, in a line; no part of what is frozen.
        problems: in their order.
    """

    name: str
    summary: str
    problems: tuple[Problem, ...]

    @property
    def sha256(self) -> str:
        """Of name and problems, in hexadecimal."""
        problems = [dataclasses.asdict(problem) for problem in self.problems]
        text = json.dumps([self.name, problems], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


#: An episode that is one action, which spreads the whole budget.
_ONE_STEP = {"constraint": "project", "max_steps": 1}
_DIGITS = "17761cb269573d8d8b3f7dd8aeff5abf14cce87622d911c87e17e64f59d14a12"
_CIFAR10 = "8ecdb6a164a62b47f470588101b4e9c707270addf9bed1f0480e07adf20901b0"


def _problems(
    env_id: str,
    weights_sha256: str,
    data_sha256: str,
    spent: tuple[int, int],
    kwargs: Iterable[dict[str, Any]],
) -> tuple[Problem, ...]:
    evaluations, seeds = spent
    return tuple(
        Problem(env_id, each, evaluations, seeds, weights_sha256, data_sha256) for each in kwargs
    )


_ALL = (
    Suite(
        "solved-v1",
        "the table of all 132,496 prunings of a ResNet-8 on digits: three budgets, in many small "
        "steps and in one; seconds per search",
        _problems(
            "CNNPruneTabular-v0",
            "7dd55d92367f6a9ebbf02652110fbb7cae4e0499f8f649623ca588a136ed25e0",
            _DIGITS,
            (500, 20),
            (
                {"budget": budget, "recovery": "bn", **episode}
                for budget in ({"params": 0.25}, {"params": 0.1}, {"macs": 0.5})
                for episode in ({}, _ONE_STEP)
            ),
        ),
    ),
    Suite(
        "real-small-v1",
        "the same network, really pruned and judged, in units of one channel; minutes per search "
        "on a CPU, nothing to download",
        _problems(
            "CNNPrune-v0",
            "061c969ac80d9be62fd2525942598551a8ee097486c1ee3d1f92b56f2acca35a",
            _DIGITS,
            (200, 10),
            (
                {"task": "digits-resnet8", "budget": budget, "recovery": "bn", **episode}
                for budget in ({"params": 0.25}, {"macs": 0.5})
                for episode in ({}, _ONE_STEP)
            ),
        ),
    ),
    Suite(
        "real-v1",
        "CIFAR-10's ResNet-20 and ResNet-56 with published weights, at half and at a quarter of "
        "the MACs; a GPU, or hours",
        tuple(
            problem
            for task, weights_sha256 in (
                (
                    "cifar10-resnet20",
                    "247c7bc2387a235b074cad5e9e6693dd23acb24c3760b7ee1a60ff0915194a2c",
                ),
                (
                    "cifar10-resnet56",
                    "af3a10f1078dbd686be6daf85c12658802f9b52ac8c97b7710ba98d5709b8e54",
                ),
            )
            for problem in _problems(
                "CNNPrune-v0",
                weights_sha256,
                _CIFAR10,
                (200, 5),
                (
                    {
                        "task": task,
                        "budget": {"macs": share},
                        "recovery": "reconstruct",
                        **_ONE_STEP,
                        "val_images": 500,
                    }
                    for share in (0.5, 0.25)
                ),
            )
        ),
    ),
)

SUITES: Mapping[str, Suite] = MappingProxyType({suite.name: suite for suite in _ALL})
"""Every suite, by name."""


def get_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        ValueError: there is none.
    """
    if name not in SUITES:
        raise ValueError(f"suite={name!r} is not known; known: {', '.join(SUITES)}")
    return SUITES[name]
