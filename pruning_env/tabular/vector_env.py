"""`gym.make_vec("CNNPruneTabular-v0")`: N episodes on the table, stepped as arrays.

What a slot does is what a single environment does, bit for bit. Knows nothing of pruning; what a
step does is in process.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from pruning_env.envs.slots import chosen_slots
from pruning_env.evaluation.evaluator import Metrics
from pruning_env.process.actions import BoxAction
from pruning_env.process.rewards import UNMET, Outcome, unmet_budgets
from pruning_env.process.state import PruningState, Transition
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.table_dynamics import Place

__all__ = ["CNNPruneTabularVectorEnv"]


class CNNPruneTabularVectorEnv(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """N episodes of `CNNPruneTabular-v0` that share one table.

    An episode that ends restarts in the same step (`AutoresetMode.SAME_STEP`); observations and
    infos are those of `CNNPruneVectorEnv`. Rewards that are arithmetic on an `Outcome` are computed
    for all slots at once, others (`amc`, `final`) slot by slot.

    Args:
        num_envs: N, at least 1.
        **arguments: those of `CNNPruneTabularEnv`, `render_mode` excepted.

    Attributes:
        single: one environment, whose table and dynamics all slots share; its episode is not used.
        graph: the dense network's channels.
        evaluator: counts the evaluations of all slots.
        dynamics: the process that all slots follow.

    Raises:
        ValueError: a bad argument.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it without ClassVar
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int = 1, **arguments: Any) -> None:
        if not isinstance(num_envs, int) or isinstance(num_envs, bool) or num_envs < 1:
            raise ValueError(f"num_envs={num_envs!r} is not allowed; give an integer of at least 1")
        if arguments.get("render_mode") is not None:
            raise ValueError(
                f"render_mode={arguments['render_mode']!r} is not allowed for many slots; "
                "draw a slot's state with a single environment's restore(state) and render()"
            )
        self.num_envs = num_envs
        self.render_mode = None
        self.single = single = CNNPruneTabularEnv(**arguments)
        self.graph, self.evaluator, self.dynamics = single.graph, single.evaluator, single.dynamics
        self.table, self.solution = single.table, single.solution
        self.single_action_space = single.action_space
        self.single_observation_space = single.observation_space
        self.action_space = batch_space(single.action_space, num_envs)
        self.observation_space = batch_space(single.observation_space, num_envs)
        self._arguments = arguments
        assert isinstance(self.dynamics.action, BoxAction)  # no other is allowed here
        self._action = self.dynamics.action
        self._process = single.process
        self._start = self._process.dense()
        self._no_terms = dict(self.dynamics.no_reward_terms(self._start.state()))
        self._reward = _SlotRewards(single)
        self._now: Place | None = None

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Prune every slot's network by its row of `actions`; see `CNNPruneVectorEnv.step`.

        Raises:
            ValueError: a bad action, named by its slot; all slots stay as they were.
            ResetNeeded: a slot has no running episode.
        """
        now = self._running()
        parsed = self._action.parse_many(actions, now.step)
        if len(parsed) != self.num_envs:
            raise ValueError(
                f"actions: {len(parsed)} given for {self.num_envs} states; give one each"
            )
        process = self._process
        after = process.follow_many(now, parsed)
        terminated = process.over(after.index, after.step)
        rewards, terms = self._reward(now, after, terminated)
        ended = np.flatnonzero(terminated)
        cost = np.zeros(self.num_envs)
        cost[ended] = [process.cost(place) for place in after.index[ended].tolist()]
        observations = process.observe(after)
        every = np.ones(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        info = process.info(after, cost, terms)
        if ended.size:
            infos["final_obs"] = np.full(self.num_envs, None, dtype=object)
            for slot, last in zip(ended, observations[ended], strict=True):
                infos["final_obs"][slot] = last
            infos["_final_obs"] = terminated.copy()
            infos["final_info"] = _batched(info, terminated)
            infos["_final_info"] = terminated.copy()
            after = _put(after, ended, self._start)
            observations[ended] = process.observe(self._start)
            for column in (cost, *terms.values()):
                column[ended] = 0.0
            info = process.info(after, cost, terms)
        infos |= _batched(info, every)
        self._now = after
        return observations, rewards, terminated, np.zeros(self.num_envs, np.bool_), infos

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
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
        self._now = _put(self._now or _repeat(start, self.num_envs), np.flatnonzero(chosen), start)
        zeros = np.zeros(self.num_envs)
        terms = {name: zeros.copy() for name in self._no_terms}
        infos = _batched(self._process.info(self._now, zeros, terms), chosen)
        return self._process.observe(self._now), infos

    def state(self, slot: int) -> PruningState:
        """Where a slot's episode is.

        Raises:
            ValueError: no such slot.
            ResetNeeded: before the first reset.
        """
        return _row(self._started(), self._slot(slot)).state()

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
        self._now = _put(self._started(), np.array([self._slot(slot)]), place)

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
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        """Build anew from the arguments, then continue the episodes."""
        CNNPruneTabularVectorEnv.__init__(self, saved["num_envs"], **saved["arguments"])
        self.evaluator.share(saved["ledger"])
        if saved["states"] is not None:
            self.reset()
            for slot, state in enumerate(saved["states"]):
                self.restore(slot, state)

    def _started(self) -> Place:
        if self._now is None:
            raise ResetNeeded("there is no episode yet; call reset() first")
        return self._now

    def _running(self) -> Place:
        now = self._started()
        over = np.flatnonzero(self._process.over(now.index, now.step) & (now.step > 0))
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


class _SlotRewards:
    """Rewards and their terms of N slots.

    In arrays where the reward function is arithmetic, else one by one as the dynamics does it.
    """

    def __init__(self, single: CNNPruneTabularEnv) -> None:
        self._dynamics = single.dynamics
        self._dense = (single.table.params.item(-1), single.table.macs.item(-1))
        self._arithmetic = False
        process = single.process
        start = _repeat(process.dense(), 3)
        # Different places: a function that branches on a number fails or gives other numbers.
        after = dataclasses.replace(
            start,
            index=np.array([0, len(process.counts) // 2, len(process.counts) - 1]),
            latest=Metrics(np.array([0.1, 0.5, 0.9]), np.array([2.5, 1.0, 0.1])),  # type: ignore[arg-type]
        )
        ended = np.array([True, False, False])
        try:
            rewards, _ = self._together(start, after, ended)
        except (TypeError, ValueError, AttributeError, ArithmeticError):
            return
        self._arithmetic = bool(np.array_equal(rewards, self._one_by_one(start, after, ended)[0]))

    def __call__(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(N,) rewards, and (N,) of each term."""
        if self._arithmetic:
            return self._together(before, after, terminated)
        return self._one_by_one(before, after, terminated)

    def _together(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        params, macs = self._dense
        outcome = Outcome(
            before=before.latest,
            after=after.latest,
            dense=self._dynamics.evaluator.dense,
            state=after,  # type: ignore[arg-type]
            previous=before,  # type: ignore[arg-type]
            dense_params=params,
            dense_macs=macs,
            terminated=terminated,  # type: ignore[arg-type]
        )
        earned = dict(self._dynamics.reward(outcome))
        if self._dynamics.constraint.binding:
            excess = after.process.excess[after.index]
            earned[UNMET] = unmet_budgets(self._dynamics.unmet, terminated, excess)
        terms = {
            name: self._dynamics.reward_scale * np.asarray(value, dtype=np.float64)
            for name, value in earned.items()
        }
        if not all(term.shape == terminated.shape for term in terms.values()):
            raise ValueError("a term is not one number per slot")
        if not all(np.isfinite(term).all() for term in terms.values()):
            return self._one_by_one(before, after, terminated)  # which says what is wrong
        return self._summed(terms, len(terminated)), terms

    def _one_by_one(
        self, before: Place, after: Place, terminated: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows = [
            self._dynamics.reward_terms(_row(before, slot), _row(after, slot), bool(ended))  # type: ignore[arg-type]
            for slot, ended in enumerate(terminated)
        ]
        terms = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return self._summed(terms, len(rows)), terms

    def _summed(self, terms: dict[str, np.ndarray], slots: int) -> np.ndarray:
        """(N,) sums of the terms, rounded as Python's `sum` does (which is not as `+` does)."""
        columns = list(terms.values())
        if len(columns) == 1:
            return columns[0] + 0.0
        lists = [column.tolist() for column in columns]
        return np.array([float(sum(row)) for row in zip(*lists, strict=True)] or np.zeros(slots))


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


def _repeat(place: Place, slots: int) -> Place:
    """N times the place of one episode."""
    return Place(
        place.process,
        np.full(slots, place.index),
        np.full(slots, place.step),
        Metrics(np.full(slots, place.latest.accuracy), np.full(slots, place.latest.loss)),  # type: ignore[arg-type]
        np.full(slots, place.judged),
        np.tile(place.last_action, (slots, 1)),
        np.full(slots, place.requested),
        np.full(slots, place.removed),
    )


def _put(places: Place, slots: np.ndarray, place: Place) -> Place:
    """`places` with some slots at the place of one episode."""

    def put(column: Any, value: Any) -> Any:
        column = column.copy()
        column[slots] = value
        return column

    metrics = Metrics(
        put(places.latest.accuracy, place.latest.accuracy),
        put(places.latest.loss, place.latest.loss),
    )
    return Place(
        places.process,
        put(places.index, place.index),
        put(places.step, place.step),
        metrics,
        put(places.judged, place.judged),
        put(places.last_action, place.last_action),
        put(places.requested, place.requested),
        put(places.removed, place.removed),
    )


def _row(places: Place, slot: int) -> Place:
    """One slot's place, as of one episode."""
    metrics = places.latest
    return Place(
        places.process,
        int(places.index[slot]),
        int(places.step[slot]),
        Metrics(metrics.accuracy.item(slot), metrics.loss.item(slot)),  # type: ignore[attr-defined]
        bool(places.judged[slot]),
        places.last_action[slot],
        int(places.requested[slot]),
        int(places.removed[slot]),
    )
