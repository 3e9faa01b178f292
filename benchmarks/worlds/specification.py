"""What is compared: budgets, rules of thumb, policies and searches. Nothing here runs one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pruning_agents.zero_shot.demonstrations import Question
from pruning_env.tasks.pools.storage import open_pool

__all__ = ["POLICIES", "RULES", "Study", "questions"]

RULES = (
    "uniform",
    "uniform-inner",
    "global-taylor",
    "global-taylor-normalised",
    "global-taylor-per-saving",
    "global-l1",
    "lamp",
)
"""Without evaluations: registered agents, and `uniform-inner`, the same fraction of every group
that no sum couples and nothing of the others as long as these suffice."""

POLICIES = ("imitation", "ppo", "imitation+ppo")
"""How a policy learned: from demonstrations, by PPO from nothing, or by PPO from the first."""


@dataclass(frozen=True)
class Study:
    """The whole comparison.

    Attributes:
        train: Networks of the training pool that policies learn on, the first so many.
        judged: Networks of each other pool, the first so many.
        limits: Of the MACs.
        demonstrations: Evaluations of each search that is imitated.
        demonstrator: Registered name of that search.
        episodes: Of PPO.
        searches: Registered names of the searches to compare with.
        evaluations: What these may spend.
        seeds: Of policies and searches.
    """

    train: int = 64
    judged: int = 16
    limits: tuple[float, ...] = (0.25, 0.4, 0.55)
    demonstrations: int = 100
    demonstrator: str = "cem-from-rules"
    episodes: int = 5_000
    searches: tuple[str, ...] = ("random-search", "rl-pruner")
    evaluations: tuple[int, ...] = (10, 50, 200)
    seeds: int = 5


def questions(pool: str, networks: int, limits: tuple[float, ...]) -> Iterator[Question]:
    """The first networks of a pool under each limit of the MACs."""
    for network in np.arange(min(networks, len(open_pool(pool)))).tolist():
        for limit in limits:
            yield Question(pool, network, (("macs", limit),))
