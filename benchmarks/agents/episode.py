"""One episode of an agent that has learned, looked at step by step, and the file that keeps it.

The policy plays in an environment like the one it has learned in. Its actions are played again in
one that measures the sensitivities anew at every step, which the policy never sees. Nothing here
draws.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pruning_agents.comparison.cells import core, make_env, play
from pruning_agents.search.import_path import resolve_agent
from pruning_agents.search.rows import Provenance, parsed_rows, provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.importance.scores import group_sensitivity
from pruning_env.process.probe import drops, probe_masks
from pruning_env.process.state import PruningState


@dataclass(frozen=True)
class Moment:
    """Where an episode stands after a step, or at its start.

    Attributes:
        counts: (L,) channels kept.
        sensitivity: (L,) shares of the mean importance of kept channels, of the network as it is.
        accuracy: on search-val, in [0, 1]; of a lazy reward, the one known last.
        params: parameters / dense.
        macs: MACs / dense.
    """

    counts: tuple[int, ...]
    sensitivity: tuple[float, ...]
    accuracy: float
    params: float
    macs: float


@dataclass(frozen=True)
class Probe:
    """What each group takes with it when a tenth of it goes, from where an episode stands.

    Attributes:
        step: of the episode.
        drops: (L,) fall of search-val accuracy, in [0, 1], after recovery; 0 where it rises.
    """

    step: int
    drops: tuple[float, ...]


@dataclass(frozen=True)
class Episode:
    """An episode of the deterministic policy.

    Attributes:
        agent: registered name, or "module:name".
        task: "tabular", or a registered task.
        settings: keyword arguments of the environment.
        seed: of the search.
        evaluations: that the search was allowed.
        groups: (L,) names of the channel groups.
        sizes: (L,) channels of each in the dense network.
        moments: one more than there were steps.
        provenance: how, where and when.
        probes: of the dense network, midway and of the last one; empty where none were asked for.
    """

    agent: str
    task: str
    settings: dict[str, Any]
    seed: int
    evaluations: int
    groups: tuple[str, ...]
    sizes: tuple[int, ...]
    moments: tuple[Moment, ...]
    provenance: Provenance
    probes: tuple[Probe, ...] = ()

    def to_json(self) -> str:
        """One line of JSON without a line break. NaN and infinities are refused."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Episode:
        """The episode that `to_json` wrote.

        Raises:
            ValueError: if it is none.
        """
        data = json.loads(line)
        try:
            data["provenance"] = Provenance(**data["provenance"])
            for moment in data["moments"]:
                for name in ("counts", "sensitivity"):
                    moment[name] = tuple(moment[name])
            data["moments"] = tuple(Moment(**moment) for moment in data["moments"])
            data["probes"] = tuple(
                Probe(probe["step"], tuple(probe["drops"])) for probe in data.get("probes", ())
            )
            data["groups"], data["sizes"] = tuple(data["groups"]), tuple(data["sizes"])
            return cls(**data)
        except (TypeError, KeyError) as error:
            raise ValueError(f"not an episode: {error}") from error


def read_episodes(path: Path) -> tuple[Episode, ...]:
    """All episodes of a JSON-lines file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: naming the line that is no episode.
    """
    return tuple(parsed_rows(path, Episode.from_json))


def play_episode(
    agent: str,
    task: str,
    settings: Mapping[str, Any],
    *,
    evaluations: int,
    seed: int,
    command: str,
    probe: bool = False,
) -> Episode:
    """Let an agent learn, and look at one episode of its policy.

    Args:
        agent: as for `import_path.resolve_agent`; it must leave a policy behind.
        task: as for `make_env`.
        settings: keyword arguments of the environment.
        evaluations: that the search may spend.
        seed: of the search.
        command: what was typed.
        probe: whether to probe every group of three of its networks: L evaluations each.

    Raises:
        ValueError: an unknown agent or task, settings that the environment refuses, or an agent
            without a policy.
    """
    entry = resolve_agent(agent)
    env = make_env(task, settings)
    watched = core(make_env(task, {**settings, "sensitivity_every": 1}))
    algorithm = entry.search(env, evaluations, seed, True).algorithm
    if algorithm is None:
        raise ValueError(f"agent={agent!r} leaves no policy behind that could play an episode")
    watched.reset(seed=seed)
    states = [watched.state()]
    for action, _ in play(make_env(task, settings), algorithm, seed):
        watched.step(action)
        states.append(watched.state())
    return Episode(
        agent,
        task,
        dict(settings),
        seed,
        evaluations,
        tuple(group.name for group in watched.graph.groups),
        tuple(int(group.size) for group in watched.graph.groups),
        tuple(_moment(watched, state) for state in states),
        provenance(command, str(settings.get("device", "cpu"))),
        _probes(watched, states) if probe else (),
    )


def _probes(env: CNNPruneEnv, states: Sequence[PruningState]) -> tuple[Probe, ...]:
    """Of the first, the middle and the last of the states, each once."""
    dynamics, probes = env.dynamics, []
    for step in dict.fromkeys((0, (len(states) - 1) // 2, len(states) - 1)):
        state = states[step]
        rank = dynamics.ranking.rank_by(dynamics.ranking.scores_at(state), state)
        masks = probe_masks(env.graph, rank, state.counts, dynamics.units.floors)
        judged = env.evaluator.recover_many(masks[1:], [state.weights] * (len(masks) - 1))
        accuracies = [dynamics.judge(state).latest.accuracy, *(j.metrics.accuracy for j in judged)]
        probes.append(Probe(step, tuple(drops(np.array(accuracies)).tolist())))
    return tuple(probes)


def _moment(env: CNNPruneEnv, state: PruningState) -> Moment:
    scores = state.sensitivity
    assert scores is not None  # it is measured at every step
    return Moment(
        tuple(int(count) for count in state.counts),
        tuple(float(share) for share in group_sensitivity(env.graph, scores, state.keep)),
        float(state.latest.accuracy),
        float(state.params),
        float(state.macs),
    )
