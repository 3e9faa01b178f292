"""`gym.make_vec("CNNPruneTabular-v0")`: N episodes on the table, stepped as arrays.

What a slot does is what a single environment does, bit for bit. Knows nothing of pruning; what a
step does is in process.py.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pruning_env.arguments import check_choice
from pruning_env.envs.rendering import Painter, render_ansi
from pruning_env.envs.slots import SlotEpisodes, chosen_slots
from pruning_env.process.actions import BoxAction
from pruning_env.process.observations import Observation
from pruning_env.process.state import PruningState, Transition
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.slot_places import put, repeated, row, taken
from pruning_env.tabular.slot_rewards import SlotRewards
from pruning_env.tabular.table_dynamics import Place

__all__ = ["CNNPruneTabularVectorEnv"]


class CNNPruneTabularVectorEnv(VectorEnv[Observation, np.ndarray, np.ndarray]):
    """N episodes of `CNNPruneTabular-v0` that share one table.

    Observations, infos and restarts are those of `CNNPruneVectorEnv`. Rewards that are arithmetic
    on an `Outcome` are computed for all slots at once, others (`amc`, `final`) slot by slot.

    Args:
        num_envs: N, at least 1.
        autoreset_mode: as of `CNNPruneVectorEnv`.
        max_episode_steps: as of `CNNPruneVectorEnv`.
        **arguments: those of `CNNPruneTabularEnv`; there are no windows, so no mode `human`.

    Attributes:
        autoreset_mode: the `AutoresetMode`.
        single: one environment, whose table and dynamics all slots share; its episode is not used.
        graph: the dense network's channels.
        evaluator: counts the evaluations of all slots.
        dynamics: the process that all slots follow.

    Raises:
        ValueError: a bad argument.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it without ClassVar
        "render_modes": ["ansi", "rgb_array"],
        "render_fps": CNNPruneTabularEnv.metadata["render_fps"],
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
        self.render_mode = arguments.get("render_mode")
        if self.render_mode is not None:
            check_choice("render_mode", self.render_mode, self.metadata["render_modes"])
        self.num_envs = num_envs
        self.episodes = SlotEpisodes(num_envs, autoreset_mode, max_episode_steps)
        self.autoreset_mode = self.episodes.mode
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self.single = single = CNNPruneTabularEnv(**arguments)
        self.graph, self.evaluator, self.dynamics = single.graph, single.evaluator, single.dynamics
        self.table, self.solution = single.table, single.solution
        self.single_action_space = single.action_space
        self.single_observation_space = single.observation_space
        self.action_space = batch_space(single.action_space, num_envs)
        self.observation_space = batch_space(single.observation_space, num_envs)
        self._arguments = {
            **arguments,
            "autoreset_mode": self.autoreset_mode,
            "max_episode_steps": max_episode_steps,
        }
        assert isinstance(self.dynamics.action, BoxAction)  # no other is allowed here
        self._action = self.dynamics.action
        self._process = single.process
        self._start = self._process.dense()
        self._reward = SlotRewards(single)
        self._now: Place | None = None
        #: Of each slot's episode, oldest first; kept where pictures are wanted.
        self._histories: list[list[PruningState]] = [[] for _ in range(num_envs)]

    def step(
        self, actions: np.ndarray
    ) -> tuple[Observation, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Prune every slot's network by its row of `actions`; see `CNNPruneVectorEnv.step`.

        Raises:
            ValueError: a bad action, named by its slot; all slots stay as they were.
            ResetNeeded: a slot has no running episode.
        """
        moved = self.episodes.to_step()
        moving = slice(None) if moved.all() else np.flatnonzero(moved)
        now = self._running(moved)
        before = taken(now, moving)
        parsed = self._action.parse_many(_without(actions, ~moved), now.step)
        if len(parsed) != self.num_envs:
            raise ValueError(
                f"actions: {len(parsed)} given for {self.num_envs} states; give one each"
            )
        process = self._process
        reached = process.follow_many(before, parsed[moving])
        over = process.over(reached.index, reached.step)
        paid, paid_terms = self._reward(before, reached, over)

        def spread(values: np.ndarray) -> np.ndarray:
            """(N,) of the values of the slots that moved; 0 for the others, which restart."""
            spread = np.zeros(self.num_envs, values.dtype)
            spread[moving] = values
            return spread

        terminated, rewards = spread(over), spread(paid)
        terms = {name: spread(term) for name, term in paid_terms.items()}
        after = put(put(now, ~moved, self._start), moving, reached)
        truncated = self.episodes.step(moved, terminated)
        cost = np.zeros(self.num_envs)
        ended = np.flatnonzero(terminated)
        cost[ended] = [process.cost(place) for place in after.index[ended].tolist()]
        numbers = process.numbers(after)
        infos: dict[str, Any] = {}
        info = process.info(after, cost, terms)
        begun = ~moved
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self.episodes.ended.any():
            begun = self.episodes.ended.copy()
            ended = np.flatnonzero(begun)
            infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
            for slot, last in zip(ended, numbers[ended], strict=True):
                infos["final_obs"][slot] = process.arranged(last)
            infos["_final_obs"] = begun.copy()
            infos["final_info"] = _batched(info, begun)
            infos["_final_info"] = begun.copy()
            after = put(after, ended, self._start)
            numbers[ended] = process.numbers(self._start)
            for column in (cost, *terms.values()):
                column[ended] = 0.0
            info = process.info(after, cost, terms)
            self.episodes.begin(ended)
        infos |= _batched(info, np.ones(self.num_envs, dtype=np.bool_))
        self._now = after
        self._remember(np.ones_like(begun), begun)
        return process.arranged(numbers), rewards, terminated, truncated, infos

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Observation, dict[str, Any]]:
        """Start all slots' episodes anew.

        Args:
            seed: of `np_random`, which no episode uses; or one per slot, of which the first counts.
            options: `{"state": state}` starts all slots there; `{"reset_mask": mask}`, (N,) bool,
                resets only some.

        Raises:
            ValueError: a bad seed or option; all slots stay as they were.
        """
        first = self._first_seed(seed)
        chosen, options = self._chosen(options)
        start = self._start
        if options:
            if set(options) != {"state"}:
                raise ValueError(
                    f'options={options!r} is not allowed; give None or {{"state": state}}'
                )
            start = self._process.place(self.dynamics.check(options["state"]))
        super().reset(seed=first)
        self._now = put(self._now or repeated(start, self.num_envs), np.flatnonzero(chosen), start)
        self.episodes.begin(chosen)
        self._remember(chosen, chosen)
        zeros = np.zeros(self.num_envs)
        terms = self._reward.nothing(self.num_envs)
        infos = _batched(self._process.info(self._now, zeros, terms), chosen)
        return self._process.observe(self._now), infos

    def render(self) -> tuple[Any, ...] | None:
        """One frame per slot, as `CNNPruneEnv.render` draws it; None without a render mode.

        Raises:
            ResetNeeded: before the first reset.
        """
        self._started()
        if self.render_mode is None:
            gym.logger.warn(
                "render() does nothing without a render mode; "
                f"make the environment with render_mode= one of {self.metadata['render_modes']}"
            )
            return None
        if self.render_mode == "ansi":
            budgets = self.dynamics.budgets
            return tuple(render_ansi(self.graph, budgets, each) for each in self._histories)
        return tuple(self._painter.frame(each) for each in self._histories)

    @functools.cached_property
    def _painter(self) -> Painter:
        return Painter(self.graph, self.dynamics.budgets)

    @property
    def places(self) -> Place:
        """Where all slots' episodes are, as arrays; never written to again.

        Raises:
            ResetNeeded: before the first reset.
        """
        return self._started()

    @property
    def evaluations(self) -> int:
        """Evaluations that all slots have spent."""
        return self.evaluator.evaluations

    def state(self, slot: int) -> PruningState:
        """Where a slot's episode is.

        Raises:
            ValueError: no such slot.
            ResetNeeded: before the first reset.
        """
        return row(self._started(), self._slot(slot)).state()

    def states(self) -> tuple[PruningState, ...]:
        """Where all slots' episodes are."""
        return tuple(self.state(slot) for slot in range(self.num_envs))

    def restore(self, slot: int, state: PruningState) -> None:
        """Let a slot continue from `state`; the others stay where they are.

        Raises:
            ValueError: no such slot, or `state` is not one of this environment's.
            ResetNeeded: before the first reset.
        """
        place = self._process.place(self.dynamics.check(state))
        chosen = np.arange(self.num_envs) == self._slot(slot)
        self._now = put(self._started(), chosen, place)
        self.episodes.begin(chosen)
        self._remember(chosen, chosen)

    def transition_many(
        self, states: Sequence[PruningState], actions: Sequence[Any] | np.ndarray
    ) -> list[Transition]:
        """What a step would give in each state; see `CNNPruneVectorEnv.transition_many`.

        Raises:
            ValueError: a bad action or state, named by its place.
        """
        return self.dynamics.transition_many(self.dynamics.check_many(states), list(actions))

    def __getstate__(self) -> dict[str, Any]:
        """The arguments and the episodes; the table is loaded again."""
        states = None if self._now is None else self.states()
        return {
            "num_envs": self.num_envs,
            "arguments": self._arguments,
            "states": states,
            "ledger": self.evaluator.ledger,
            "episodes": self.episodes,
            "histories": self._histories,
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Build anew from the arguments, then continue the episodes."""
        CNNPruneTabularVectorEnv.__init__(self, saved["num_envs"], **saved["arguments"])
        self.evaluator.share(saved["ledger"])
        if saved["states"] is not None:
            self.reset()
            for slot, state in enumerate(saved["states"]):
                self.restore(slot, state)
        self.episodes, self._histories = saved["episodes"], saved["histories"]

    def _started(self) -> Place:
        if self._now is None:
            raise ResetNeeded("there is no episode yet; call reset() first")
        return self._now

    def _remember(self, chosen: np.ndarray, begun: np.ndarray) -> None:
        """Keep the states of the `chosen` slots; of those `begun`, as an episode's first."""
        if self.render_mode is None:
            return
        for slot in np.flatnonzero(chosen).tolist():
            past = [] if begun[slot] else self._histories[slot]
            self._histories[slot] = [*past, self.state(slot)]

    def _running(self, moved: np.ndarray) -> Place:
        """Where the slots are, if all that are to be `moved` can be."""
        now = self._started()
        over = np.flatnonzero(moved & self._process.over(now.index, now.step) & (now.step > 0))
        if over.size:
            raise ResetNeeded(f"slot {over[0]}: the episode is over; call reset() before step()")
        return now

    def _slot(self, slot: int) -> int:
        if (
            not isinstance(slot, (int, np.integer))
            or isinstance(slot, bool)
            or not 0 <= slot < self.num_envs
        ):
            raise ValueError(
                f"slot={slot!r} is not allowed; give an integer from 0 to {self.num_envs - 1}"
            )
        return int(slot)

    def _first_seed(self, seed: int | Sequence[int | None] | None) -> int | None:
        one = seed is None or isinstance(seed, (int, np.integer))
        seeds = [seed] if one else list(seed)  # type: ignore[arg-type]
        if (not one and len(seeds) != self.num_envs) or not all(
            each is None or (isinstance(each, (int, np.integer)) and int(each) >= 0)
            for each in seeds
        ):
            raise ValueError(
                f"seed={seed!r} is not allowed; give an integer of at least 0, or "
                f"{self.num_envs} of them or None, one per slot"
            )
        return None if seeds[0] is None else int(seeds[0])  # type: ignore[arg-type]

    def _chosen(self, options: dict[str, Any] | None) -> tuple[np.ndarray, dict[str, Any] | None]:
        """(N,) bool, which slots to reset, and the other options."""
        if options is not None and not isinstance(options, dict):
            raise ValueError(f"options={options!r} is not allowed; give a dict")
        mask, others = chosen_slots(options, self.num_envs)
        if self._now is None and not mask.all():
            raise ResetNeeded("there is no episode yet; reset all slots first")
        return mask, others


def _batched(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """`info` of (N,) arrays as Gymnasium's: 0 where `mask` is False, and the mask beside each."""
    batched: dict[str, Any] = {}
    every = mask.all()
    for key, values in info.items():
        if isinstance(values, dict):
            batched[key] = _batched(values, mask)
        else:
            batched[key] = values.copy() if every else np.where(mask, values, values.dtype.type(0))
        batched[f"_{key}"] = mask.copy()
    return batched


def _without(actions: Any, ignored: np.ndarray) -> Any:
    """The actions, with zeros where they are ignored and may be anything."""
    if not ignored.any() or not isinstance(actions, np.ndarray) or len(actions) != len(ignored):
        return actions
    actions = actions.copy()
    actions[ignored] = 0
    return actions
