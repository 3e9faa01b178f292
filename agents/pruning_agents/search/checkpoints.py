"""A search on disk that can be continued: the agent, its environment, and what drew at random.

A checkpoint is one zip file, replaced as a whole, so that a killed run leaves the old one or the
new one. Its parts are pickled: load only what you trust. Knows no algorithm, and not when to save.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from pruning_agents.former_names import former_names
from pruning_agents.search.recording import IncumbentRecorder
from pruning_agents.search.result import IncumbentTracker
from pruning_agents.search.rng_state import Generators
from pruning_env.files import atomic_path
from pruning_env.process.dynamics import PruningState

_FORMAT = 1

#: What reading a damaged or foreign file raises, apart from what `_check_about` says of it.
_DAMAGE = (
    EOFError,
    KeyError,
    OSError,  # places before the beginning of the file
    NotImplementedError,  # a damaged header that asks for another compression
    RecursionError,  # JSON that is nested too deep
    RuntimeError,  # a damaged header that asks for a password
    UnicodeDecodeError,
    json.JSONDecodeError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    zlib.error,
)

_ABOUT, _AGENT, _REST, _REPLAY = "about.json", "agent.zip", "rest.pkl", "replay_buffer.pkl"


@dataclass(frozen=True)
class Identity:
    """What makes two runs the same: one continues only its own checkpoint.

    Attributes:
        agent: registered name.
        seed: of the search.
        evaluations: to spend.
        env: registered id of the environment.
        settings: keyword arguments that it was made with; they must have a form in JSON.
    """

    agent: str
    seed: int
    evaluations: int
    env: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class EnvironmentSnapshot:
    """An environment between two steps, without network and data.

    Attributes:
        state: where its episode is.
        rewards: of this episode so far, as Monitor keeps them.
        memory: what its evaluator remembers and has counted.
        tracker: the incumbent of its `IncumbentRecorder`; None where there is none.
        before: evaluations that were spent when the recorder began.
    """

    state: PruningState
    rewards: tuple[float, ...]
    memory: Mapping[str, Any]
    tracker: IncumbentTracker | None
    before: int


@dataclass(frozen=True)
class Checkpoint:
    """A search between two rollouts, apart from the agent.

    Attributes:
        spent: evaluations spent by the search.
        visits: judgements it made, repeat visits included.
        seconds: that it took.
        environment: where its environment is.
        generators: states of the global generators.
    """

    spent: int
    visits: int
    seconds: float
    environment: EnvironmentSnapshot
    generators: Generators

    @property
    def counts(self) -> tuple[int, int, float]:
        """Evaluations spent, visits and seconds."""
        return self.spent, self.visits, self.seconds


def take_environment(vec_env: VecEnv) -> EnvironmentSnapshot:
    """What must be known of an agent's only environment, which is in the middle of its training."""
    monitor, recorder, unwrapped = _layers(vec_env)
    return EnvironmentSnapshot(
        state=unwrapped.state(),
        rewards=tuple(monitor.rewards),
        memory=unwrapped.evaluator.memory(),
        tracker=None if recorder is None else recorder.tracker,
        before=0 if recorder is None else recorder.before,
    )


def restore_environment(vec_env: VecEnv, snapshot: EnvironmentSnapshot) -> None:
    """Put an environment that was made anew where the one of the snapshot was."""
    monitor, recorder, unwrapped = _layers(vec_env)
    monitor.reset()
    monitor.rewards = list(snapshot.rewards)
    unwrapped.restore(snapshot.state)
    unwrapped.evaluator.recall(snapshot.memory)
    if recorder is not None:
        assert snapshot.tracker is not None
        recorder.tracker, recorder.before = snapshot.tracker, snapshot.before


def _layers(vec_env: VecEnv) -> tuple[Monitor, IncumbentRecorder | None, Any]:
    """Monitor, recorder and innermost environment of an agent's only environment."""
    if not isinstance(vec_env, DummyVecEnv) or vec_env.num_envs != 1:
        raise ValueError(f"checkpoints need one environment in a DummyVecEnv, not {vec_env!r}")
    monitor: Monitor | None = None
    recorder: IncumbentRecorder | None = None
    layer: gym.Env = vec_env.envs[0]
    while isinstance(layer, gym.Wrapper):
        if isinstance(layer, Monitor):
            monitor = layer
        elif isinstance(layer, IncumbentRecorder):
            recorder = layer
        layer = layer.env
    if monitor is None:
        raise ValueError(f"checkpoints need an environment in a Monitor, not {vec_env.envs[0]!r}")
    return monitor, recorder, layer


def write_checkpoint(
    path: Path, identity: Identity, checkpoint: Checkpoint, agent: BaseAlgorithm
) -> None:
    """Write a checkpoint, all of it or nothing; an older one is replaced."""
    saved = io.BytesIO()
    agent.save(saved)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr(_ABOUT, json.dumps({"format": _FORMAT, **asdict(identity)}))
        file.writestr(_AGENT, saved.getvalue())
        deflated = zipfile.ZIP_DEFLATED
        file.writestr(_REST, pickle.dumps(checkpoint), deflated, compresslevel=1)
        if isinstance(agent, OffPolicyAlgorithm):
            replay = io.BytesIO()
            agent.save_replay_buffer(replay)
            file.writestr(_REPLAY, replay.getvalue(), deflated, compresslevel=1)


def load_checkpoint(
    path: Path, identity: Identity, algorithm: type[BaseAlgorithm], env: gym.Env
) -> tuple[BaseAlgorithm, Checkpoint]:
    """Read a checkpoint; the agent comes back with `env`, which is not moved.

    Unpickles: load only what you trust.

    Args:
        path: of the file.
        identity: of the run that is to continue.
        algorithm: class of the agent.
        env: its environment, in the wrappers that the agent needs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, of another format, or of another run; it says what differs.
    """
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read(_ABOUT))
            _check_about(path, about, identity)
            # All is read, and so checked for damage, before anything is unpickled.
            parts = {name: file.read(name) for name in file.namelist()}
        with former_names():
            checkpoint = pickle.loads(parts[_REST])
    except FileNotFoundError:
        raise
    except _DAMAGE as error:
        raise ValueError(
            f"{path} is no checkpoint, or a damaged one ({error}); delete it to begin anew"
        ) from error
    # SB3 discards the observation that training would go on from, unless told not to.
    with former_names():
        agent = algorithm.load(io.BytesIO(parts[_AGENT]), env=env, device="cpu", force_reset=False)
        if isinstance(agent, OffPolicyAlgorithm):
            agent.load_replay_buffer(io.BytesIO(parts[_REPLAY]), truncate_last_traj=False)
    return agent, checkpoint


def _check_about(path: Path, about: Any, identity: Identity) -> None:
    if not isinstance(about, dict) or about.get("format") != _FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise ValueError(f"{path} has format {found!r}; this version reads format {_FORMAT}")
    asked = json.loads(json.dumps(asdict(identity)))
    differences = [
        f"{name} is {about.get(name)!r} there and {value!r} here"
        for name, value in asked.items()
        if about.get(name) != value
    ]
    if differences:
        raise ValueError(f"{path} is of another run: {'; '.join(differences)}")
