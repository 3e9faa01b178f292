"""`gym.make_vec("CNNPrune-v0")`: many episodes that step together, on one network and one device.

A thin face: each slot is a fork of one `CNNPruneEnv`, and the slots' candidates are judged in one
call. Knows nothing of pruning; what a step does is in dynamics.py, what it gives back in env.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.slots import SlotEpisodes, chosen_slots
from pruning_env.process.dynamics import PruningState, Transition
from pruning_env.process.observations import Observation, stack


@dataclass(frozen=True)
class SlotStep:
    """What one slot's step gives.

    Attributes:
        observation: after the step, at the end of an episode its last.
        reward: of the step.
        terminated: whether the episode ended.
        truncated: whether it was cut short.
        info: after the step; keys as in `CNNPruneEnv`.
        restart: observation and info of the new episode, if one began in the same step; else None.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool
    info: dict[str, Any]
    restart: tuple[Observation, dict[str, Any]] | None


class CNNPruneVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """N episodes of `CNNPrune-v0` that share network, data and cache.

    A slot does what a single environment does, bit for bit; the N new networks of a step are judged
    together. Episodes restart as in Gymnasium's own vector environments.

    Args:
        num_envs: N, at least 1.
        autoreset_mode: an `AutoresetMode` or its value. `"NextStep"`: the step after an episode's
            end restarts it, ignores the action and costs nothing. `"SameStep"`: the last step
            restarts it; the observation is the new episode's, and `info["final_obs"]` and
            `info["final_info"]` are the old one's. `"Disabled"`: `reset` with a mask does.
        max_episode_steps: steps after which an episode is truncated; None: none.
        **arguments: those of `CNNPruneEnv`; see its table.

    Attributes:
        autoreset_mode: the `AutoresetMode`.
        slots: the N environments, forks of one another.
        graph: the dense network's channels.
        evaluator: judges all slots' candidates.
        dynamics: the process that all slots follow.

    Raises:
        ValueError: a bad argument.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it without ClassVar
        **CNNPruneEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = "NextStep",
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        if not isinstance(num_envs, int) or isinstance(num_envs, bool) or num_envs < 1:
            raise ValueError(f"num_envs={num_envs!r} is not allowed; give an integer of at least 1")
        self.num_envs = num_envs
        self.episodes = SlotEpisodes(num_envs, autoreset_mode, max_episode_steps)
        self.autoreset_mode = self.episodes.mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._populate(CNNPruneEnv(**arguments))
        first = self.slots[0]
        self.render_mode = first.render_mode
        self.single_action_space = first.action_space
        self.single_observation_space = first.observation_space
        self.action_space = batch_space(first.action_space, num_envs)
        self.observation_space = batch_space(first.observation_space, num_envs)

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Prune every slot's network by its row of `actions`, or restart its episode.

        Args:
            actions: (N, ...) one action per slot; those of slots that restart are ignored.

        Returns:
            (N, ...) observations, (N,) float64 rewards, (N,) bool terminations, (N,) bool
            truncations, and the info arrays with their `_key` masks.

        Raises:
            ValueError: a bad action, named by its slot; all slots stay as they were.
            ResetNeeded: a slot has no running episode.
        """
        steps = self._step(actions, restart=self.autoreset_mode is AutoresetMode.SAME_STEP)
        infos: dict[str, Any] = {}
        for slot, step in enumerate(steps):
            info = step.info
            if step.restart is not None:
                final = {"final_obs": step.observation, "final_info": info}
                infos = self._add_info(infos, final, slot)
                info = step.restart[1]
            infos = self._add_info(infos, info, slot)
        return (
            stack([s.observation if s.restart is None else s.restart[0] for s in steps]),
            np.array([step.reward for step in steps], dtype=np.float64),
            np.array([step.terminated for step in steps], dtype=np.bool_),
            np.array([step.truncated for step in steps], dtype=np.bool_),
            infos,
        )

    def step_slots(self, actions: Sequence[Any] | np.ndarray) -> list[SlotStep]:
        """`step` as one record per slot instead of arrays.

        Episodes restart in the step that ends them, whatever `autoreset_mode`.
        """
        return self._step(actions, restart=True)

    def _step(self, actions: Sequence[Any] | np.ndarray, restart: bool) -> list[SlotStep]:
        """`restart`: whether episodes that end in this step restart in it."""
        rows = _rows(actions)
        if len(rows) != self.num_envs:
            raise ValueError(f"actions: {len(rows)} given for {self.num_envs} slots; give one each")
        moved = self.episodes.to_step()
        moving = np.flatnonzero(moved).tolist()
        transitions = self.dynamics.commit_many(
            [self._running(slot) for slot in moving], [rows[slot] for slot in moving], moving
        )
        terminated = np.zeros(self.num_envs, dtype=np.bool_)
        terminated[moving] = [transition.terminated for transition in transitions]
        truncated = self.episodes.step(moved, terminated)
        after = dict(zip(moving, transitions, strict=True))
        steps = []
        for index, slot in enumerate(self.slots):
            if index not in after:
                observation, info = slot.reset()
                steps.append(SlotStep(observation, 0.0, False, False, info, None))
                continue
            observation, reward, _, _, info = slot.advance(after[index])
            again = None
            if restart and self.episodes.ended[index]:
                again = slot.reset()
                self.episodes.begin(index)
            ends = bool(terminated[index]), bool(truncated[index])
            steps.append(SlotStep(observation, reward, *ends, info, again))
        return steps

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all slots' episodes anew.

        Args:
            seed: of slot 0; slot i gets `seed + i`. Or one seed or None per slot.
            options: `{"state": state}` starts all slots there; `{"reset_mask": mask}`, (N,) bool,
                resets only some.

        Raises:
            ValueError: a bad seed or option; all slots stay as they were.
        """
        seeds = self._seeds(seed)
        chosen, options = chosen_slots(options, self.num_envs)
        infos: dict[str, Any] = {}
        observations = []
        for index, slot in enumerate(self.slots):
            if chosen[index]:
                observation, info = slot.reset(seed=seeds[index], options=options)
                infos = self._add_info(infos, info, index)
            else:
                observation = slot.observe(slot.state())
            observations.append(observation)
        self.episodes.begin(chosen)
        return stack(observations), infos

    def render(self) -> tuple[Any, ...] | None:
        """One frame per slot, as `CNNPruneEnv.render` draws it; None without a render mode."""
        if self.render_mode is None:
            self.slots[0].render()  # warns
            return None
        return tuple(slot.render() for slot in self.slots)

    @property  # type: ignore[misc]  # read-only, unlike Gymnasium's
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The slots' generators."""
        return tuple(slot.np_random for slot in self.slots)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The slots' seeds."""
        return tuple(slot.np_random_seed for slot in self.slots)

    @property
    def evaluations(self) -> int:
        """Evaluations that the evaluator, which the slots share, has spent."""
        return self.evaluator.evaluations

    def state(self, slot: int) -> PruningState:
        """Where a slot's episode is; see `CNNPruneEnv.state`.

        Raises:
            ValueError: no such slot.
            ResetNeeded: before the first reset.
        """
        return self._slot(slot).state()

    def states(self) -> tuple[PruningState, ...]:
        """Where all slots' episodes are."""
        return tuple(slot.state() for slot in self.slots)

    def restore(self, slot: int, state: PruningState) -> None:
        """Let a slot continue from `state`; the others stay where they are.

        Raises:
            ValueError: no such slot, or `state` is not one of this environment's.
        """
        self._slot(slot).restore(state)
        self.episodes.begin(slot)

    def transition_many(
        self, states: Sequence[PruningState], actions: Sequence[Any] | np.ndarray
    ) -> list[Transition]:
        """What a step would give in each state, judged together; no slot's episode moves.

        There may be any number of states, and they may repeat: n actions in one state, or all
        children of a search tree's leaves, are one call.

        Raises:
            ValueError: a bad action or state, named by its place.
        """
        return self.dynamics.transition_many(self.dynamics.check_many(states), _rows(actions))

    def __getstate__(self) -> dict[str, Any]:
        """The slots' arguments and episodes; one of them brings what they share."""
        mine = {name: value for name, value in self.__dict__.items() if name not in _SHARED}
        return {**mine, "slots": [slot.__getstate__() for slot in self.slots]}

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Build network and data once, then continue the episodes."""
        episodes = saved.pop("slots")
        self.__dict__.update(saved)
        first = CNNPruneEnv.__new__(CNNPruneEnv)
        first.__setstate__(episodes[0])
        self._populate(first)
        for slot, episode in zip(self.slots, episodes, strict=True):
            slot.__dict__.update(episode)

    def _populate(self, first: CNNPruneEnv) -> None:
        self.slots = [first, *(first.fork() for _ in range(self.num_envs - 1))]
        self.graph, self.evaluator, self.dynamics = first.graph, first.evaluator, first.dynamics

    def _running(self, slot: int) -> PruningState:
        try:
            return self.slots[slot].running()
        except ResetNeeded as error:
            raise ResetNeeded(f"slot {slot}: {error}") from error

    def _slot(self, slot: int) -> CNNPruneEnv:
        if (
            not isinstance(slot, (int, np.integer))
            or isinstance(slot, bool)
            or not 0 <= slot < self.num_envs
        ):
            raise ValueError(
                f"slot={slot!r} is not allowed; give an integer from 0 to {self.num_envs - 1}"
            )
        return self.slots[slot]

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        """One seed or None per slot."""
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            seeds: list[int | None] = [int(seed) + index for index in range(self.num_envs)]
        else:
            seeds = list(seed)
        if len(seeds) != self.num_envs or not all(_is_seed(each) for each in seeds):
            raise ValueError(
                f"seed={seed!r} is not allowed; give an integer of at least 0, or "
                f"{self.num_envs} of them or None, one per slot"
            )
        return seeds


_SHARED = ("graph", "evaluator", "dynamics")


def _rows(actions: Any) -> list[Any]:
    """One action per row, not yet checked."""
    try:
        return list(actions)
    except TypeError:
        raise ValueError(f"actions={actions!r} is not allowed; give one action per slot") from None


def _is_seed(seed: Any) -> bool:
    return seed is None or (isinstance(seed, (int, np.integer)) and int(seed) >= 0)
