"""What is imitated: for a network and a budget, how the best that a search found spreads its cuts.

Knows nothing of policies.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from tqdm import tqdm

from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance, append_row, keyed_rows
from pruning_agents.zero_shot.policy import worlds_of

__all__ = ["Demonstration", "Question", "collect", "read_demonstrations"]


@dataclass(frozen=True)
class Question:
    """A network of a pool and a budget that it is to be pruned to.

    Attributes:
        pool: Name or path, as `CNNPruneWorlds-v0` takes it.
        network: Its number.
        limits: By name, each budget that the environment can draw; 1 is no limit.
    """

    pool: str
    network: int
    limits: tuple[tuple[str, float], ...]

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Question:
        """Of its fields as JSON has them, in which tuples are lists."""
        limits = tuple((name, float(limit)) for name, limit in fields["limits"])
        return cls(**{**fields, "limits": limits})

    @property
    def options(self) -> dict[str, Any]:
        """For `reset`."""
        return {"network": self.network, "budget": dict(self.limits)}


@dataclass(frozen=True)
class Demonstration:
    """What a search found for a question.

    Attributes:
        question: Which network and budget.
        agent: Registered name of the search.
        evaluations: That it could spend.
        seed: Of the search.
        counts: (L,) channels that each group keeps.
        val_accuracy: On search-val, in [0, 1].
        provenance: How, where and when.
    """

    question: Question
    agent: str
    evaluations: int
    seed: int
    counts: tuple[int, ...]
    val_accuracy: float
    provenance: Provenance

    @property
    def key(self) -> str:
        """Equal for equal searches."""
        return _key(self.question, self.agent, self.evaluations, self.seed)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Demonstration:
        """The demonstration that `to_json` wrote.

        Raises:
            ValueError: It is none.
        """
        data: Any = json.loads(line)
        try:
            data["question"] = Question.from_fields(data["question"])
            data["counts"] = tuple(data["counts"])
            data["provenance"] = Provenance(**data["provenance"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not a demonstration: {error}") from error


def _key(question: Question, agent: str, evaluations: int, seed: int) -> str:
    return json.dumps([dataclasses.asdict(question), agent, evaluations, seed])


def read_demonstrations(path: str | os.PathLike[str]) -> dict[str, Demonstration]:
    """By key, the last of each; nothing where there is no such file."""
    return keyed_rows(path, Demonstration.from_json, lambda found: found.key)


def collect(
    env: gym.Env[Any, Any],
    questions: Iterable[Question],
    path: str | os.PathLike[str],
    origin: Provenance,
    *,
    agent: str = "cem-from-rules",
    evaluations: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Iterator[Demonstration]:
    """Search for each question that the file has no answer to, and append what was found.

    Args:
        env: `CNNPruneWorlds-v0` of the questions' pool.
        questions: To be answered, in this order.
        path: A file of JSON lines, made if needed.
        origin: What is written beside each.
        agent: Registered name of the search.
        evaluations: It may spend on each question.
        seed: Of the search.
        progress: Whether to show a bar.

    Yields:
        The demonstrations of all questions, of the file or new.

    Raises:
        ValueError: The environment, agent or a question is not what it must be.
    """
    inside, entry = worlds_of(env), get_agent(agent)
    known = read_demonstrations(path)
    for question in tqdm(list(questions), desc="demonstrations", disable=not progress):
        found = known.get(_key(question, agent, evaluations, seed))
        if found is None:
            env.reset(options=question.options)
            result = entry.search(inside.episode, evaluations, seed, False).result
            if result is None:
                continue
            found = Demonstration(
                question=question,
                agent=agent,
                evaluations=evaluations,
                seed=seed,
                counts=tuple(int(count) for count in result.state.counts),
                val_accuracy=result.accuracy,
                provenance=origin,
            )
            append_row(path, found)
        yield found


def removed_shares(
    sizes: np.ndarray, counts: tuple[int, ...], smoothing: float = 0.5
) -> np.ndarray:
    """(L,) distribution of the channels that are gone over the groups.

    Args:
        sizes: (L,) channels in the dense network.
        counts: (L,) of them that are kept.
        smoothing: Channels by which each group is taken to have given more: a group that gave none
            might have given some.
    """
    gone = sizes - np.array(counts) + smoothing
    return gone / gone.sum()
