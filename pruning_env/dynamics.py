"""The pruning process: states, transitions, and when an episode ends.

This is the only place with pruning semantics; every environment is a face of it. Which channels of
a group go is fixed at construction (lowest importance in the dense network first), so a state is a
function of how many channels each group keeps. Knows nothing of Gymnasium environments, seeds,
observations or rendering.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_env.arguments import check_choice, check_fraction, check_positive
from pruning_env.rewards import Outcome, RewardFunction, accuracy_change
from pruning_env.units import Units

if TYPE_CHECKING:
    from torch import nn

    from pruning_env.actions import ActionKind
    from pruning_env.budgets import Budget
    from pruning_env.channels import ChannelGraph
    from pruning_env.evaluator import Evaluator, Metrics
    from pruning_env.weights import Weights

CONSTRAINTS = ("terminate",)


@dataclass(frozen=True, eq=False)
class PruningState:
    """Where an episode is. Immutable: keeping a reference is a checkpoint.

    Equal when all fields are; hashable; pickles. The arrays are copied and read-only.

    Attributes:
        keep: (C,) bool, which channels are left.
        counts: (L,) int64, how many channels each group keeps.
        step: steps taken since the dense network.
        metrics: search-val metrics, or None while not judged.
        usage: one ratio to dense per budget, in the budgets' order.
        params: parameters / dense.
        macs: MACs / dense.
        last_action: (L,) float64 in [-1, 1], the action that led here; zeros at the start.
        requested: channels that the last step announced.
        removed: channels that it removed. Fewer only when nothing more can be removed, or where a
            group's dense width was no multiple of `round_to` and its partial unit went.
        weights: what recovery trained; while not judged, what it will start from. None where it
            does not train, and for the dense network.
    """

    keep: np.ndarray
    counts: np.ndarray
    step: int
    metrics: Metrics | None
    usage: tuple[float, ...]
    params: float
    macs: float
    last_action: np.ndarray
    requested: int
    removed: int
    weights: Weights | None = None

    def __post_init__(self) -> None:
        """Own the arrays and lock them."""
        for name, dtype in (("keep", bool), ("counts", np.int64), ("last_action", np.float64)):
            array = np.array(getattr(self, name), dtype=dtype)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle through the constructor, or the arrays would come back writeable."""
        return type(self), self._values()

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal, bit for bit."""
        return isinstance(other, PruningState) and self._key() == other._key()

    def __hash__(self) -> int:
        """Hash of what `__eq__` compares."""
        return hash(self._key())

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self))

    def _key(self) -> tuple[Any, ...]:
        return tuple(v.tobytes() if isinstance(v, np.ndarray) else v for v in self._values())


@dataclass(frozen=True)
class Transition:
    """What one step gives.

    Attributes:
        state: the judged state after it.
        reward: the sum of `reward_terms`, in their order.
        reward_terms: summands by name, already scaled.
        cost: summed excess over the budgets' limits, paid at the last step only; else 0.
        terminated: whether the episode is over.
    """

    state: PruningState
    reward: float
    reward_terms: dict[str, float]
    cost: float
    terminated: bool


class PruningDynamics:
    """A Markov decision process over keep masks. Holds no state of an episode.

    Args:
        graph: the dense network's channels; at least one must be removable.
        evaluator: of the same network.
        budgets: what must become small; see `budgets.parse_budget`.
        action: how an action is split over the groups; see actions.py.
        channels_per_step: in (0, 1], share of the dense network's channels that a step removes;
            rounded to the nearest whole number of units, at least 1.
        round_to: channels in a unit: groups keep their dense width or a multiple of it; see
            units.py.
        reward: what a step earns; see rewards.py.
        reward_scale: factor on every reward term, finite and above 0.
        importance: a registered importance's name. `"random"` is one fixed random ranking.
        constraint: `"terminate"`: an episode ends when all budgets are met, or when nothing more
            can be removed.

    Attributes:
        graph: the dense network's channels.
        evaluator: judges keep masks on search-val.
        budgets: what must become small.
        action: the action kind.
        scores: (C,) importance in the dense network, read-only.
        rank: (C,) rank inside the group, 0 = most important = last to go, read-only.
        units: the steps in which widths shrink.
        per_step: channels that each step announces.

    Raises:
        ValueError: a bad argument, or nothing can be pruned.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        budgets: tuple[Budget, ...],
        action: ActionKind,
        *,
        channels_per_step: float = 0.05,
        round_to: int = 1,
        reward: RewardFunction = accuracy_change,
        reward_scale: float = 1.0,
        importance: str = "taylor",
        constraint: str = "terminate",
    ) -> None:
        if not graph.groups:
            raise ValueError(
                f"graph has no removable channel; frozen layers and reasons: {graph.frozen}"
            )
        check_choice("constraint", constraint, CONSTRAINTS)
        self.graph = graph
        self.evaluator = evaluator
        self.budgets = budgets
        self.action = action
        share = check_fraction("channels_per_step", channels_per_step)
        self.units = Units(graph.sizes, round_to)
        self._units_per_step = max(1, round(share * graph.num_channels / round_to))
        self.per_step = self._units_per_step * round_to
        self._reward = reward
        self._reward_scale = check_positive("reward_scale", reward_scale)
        # A fixed stream: the ranking belongs to the environment, not to an episode's seed.
        self.scores = np.array(evaluator.scores(importance, rng=np.random.default_rng(0)))
        self.rank = np.array(graph.rank(self.scores))
        for array in (self.scores, self.rank):
            array.setflags(write=False)
        full = graph.full()
        self._dense_params = int(graph.params(full))
        self._dense_macs = int(graph.macs(full))
        self._dense_usage = self._measure(full)
        for budget, amount in zip(budgets, self._dense_usage, strict=True):
            if amount <= 0:
                raise ValueError(
                    f"budget key {budget.name!r} measures {amount!r} on the dense network; "
                    "it must be above 0 there"
                )

    def initial(self) -> PruningState:
        """The dense network, judged."""
        nothing = np.zeros(len(self.graph.groups))
        dense = self._state(self.graph.sizes, step=0, last_action=nothing, requested=0, removed=0)
        return self.judge(dense)

    def apply(self, state: PruningState, action: Any) -> PruningState:
        """Prune and count, but evaluate nothing: the returned state has `metrics=None`.

        Exactly `min(per_step, what the floors leave)` channels go, in units of `round_to`, the
        least important of each group first; `requested` and `removed` say so.

        Raises:
            ValueError: a bad action; see the action kind's `parse`.
        """
        parsed = self.action.parse(action)
        units = self.units
        taken = self.action.split(
            parsed, self._units_per_step, units.left(state.counts), units.given(state.counts)
        )
        counts = units.take(state.counts, taken)
        return self._state(
            counts,
            step=state.step + 1,
            last_action=parsed,
            requested=self.per_step,
            removed=int((state.counts - counts).sum()),
            weights=state.weights,
        )

    def judge(self, state: PruningState) -> PruningState:
        """The same state with its search-val metrics; one evaluation unless it has them."""
        return self.judge_many([state])[0]

    def judge_many(self, states: Sequence[PruningState]) -> list[PruningState]:
        """The same states with their metrics; those that have none are evaluated together."""
        judged = list(states)
        waiting = []
        for index, state in enumerate(states):
            if state.metrics is not None:
                continue
            if state.keep.all():
                # The dense network needs no recovery, and no evaluation of the agent's.
                judged[index] = dataclasses.replace(state, metrics=self.evaluator.dense)
            else:
                waiting.append(index)
        if waiting:
            answers = self.evaluator.recover_many(
                [states[index].keep for index in waiting],
                [states[index].weights for index in waiting],
            )
            for index, answer in zip(waiting, answers, strict=True):
                judged[index] = dataclasses.replace(
                    states[index], metrics=answer.metrics, weights=answer.weights
                )
        return judged

    def transition(self, state: PruningState, action: Any) -> Transition:
        """One step: prune, judge, reward, cost, and whether the episode is over.

        Raises:
            ValueError: a bad action, or `state` is terminal.
        """
        return self._completed([(state, self._successor(state, action))])[0]

    def transition_many(
        self, states: Sequence[PruningState], actions: Sequence[Any] | np.ndarray
    ) -> list[Transition]:
        """One step from each state, as `transition` would make it, all new networks judged at once.

        States may repeat: `transition_many([state] * n, actions)` tries n actions in one state.

        Raises:
            ValueError: a bad action or a terminal state, with its position as `slot`, or not as
                many actions as states; nothing is judged then.
        """
        if len(states) != len(actions):
            raise ValueError(
                f"actions: {len(actions)} given for {len(states)} states; give one each"
            )
        steps = [
            (state, _in_slot(slot, self._successor, state, action))
            for slot, (state, action) in enumerate(zip(states, actions, strict=True))
        ]
        return self._completed(steps)

    def feasible(self, state: PruningState) -> bool:
        """Whether every budget is met."""
        return all(u <= b.limit for u, b in zip(state.usage, self.budgets, strict=True))

    def exhausted(self, state: PruningState) -> bool:
        """Whether every group is at its floor."""
        return not self.units.left(state.counts).any()

    def terminal(self, state: PruningState) -> bool:
        """Whether an episode that reaches `state` is over; the dense network never is."""
        return state.step > 0 and (self.feasible(state) or self.exhausted(state))

    def excess(self, state: PruningState) -> float:
        """How far usage is above the limits, summed over the budgets; 0 when feasible."""
        return float(sum(b.excess(u) for u, b in zip(state.usage, self.budgets, strict=True)))

    def no_reward_terms(self, state: PruningState) -> dict[str, float]:
        """The reward's terms, all 0: what a reset reports."""
        judged = self.judge(state)
        return dict.fromkeys(self._reward_terms(judged, judged, False), 0.0)

    def check(self, state: Any) -> PruningState:
        """Return `state`, judged, if this process can be in it.

        Metrics that the state brings along are trusted.

        Raises:
            ValueError: it is no `PruningState`, or of another network, ranking or budget.
        """
        return self.judge(self._recognised(state))

    def check_many(self, states: Sequence[Any]) -> list[PruningState]:
        """`check` for each of the states; those not judged yet are evaluated together.

        Raises:
            ValueError: as `check`, naming the state's position as `slot`; nothing is judged then.
        """
        return self.judge_many(
            [_in_slot(slot, self._recognised, state) for slot, state in enumerate(states)]
        )

    def _recognised(self, state: Any) -> PruningState:
        if not isinstance(state, PruningState):
            raise ValueError(f"state={state!r} is not allowed; give a PruningState")
        sizes = self.graph.sizes
        if state.counts.shape != sizes.shape or state.keep.shape != (self.graph.num_channels,):
            raise ValueError(
                f"state is of another network: it has {state.counts.size} groups and "
                f"{state.keep.size} channels, this one {sizes.size} and {self.graph.num_channels}"
            )
        if not self.units.reachable(state.counts):
            raise ValueError(
                f"state.counts={state.counts.tolist()} must be sizes of the dense network or "
                f"multiples of round_to={self.units.round_to} between the floors and them"
            )
        if not np.array_equal(state.keep, self.graph.keep_top(self.rank, state.counts)):
            raise ValueError(
                "state.keep is not what this ranking keeps at state.counts; "
                "take states from an environment with the same task, weights and importance"
            )
        self._check_weights(state)
        if len(state.usage) != len(self.budgets):
            raise ValueError(
                f"state.usage has {len(state.usage)} entries; "
                f"this environment has {len(self.budgets)} budgets"
            )
        for budget, usage, dense in zip(self.budgets, state.usage, self._dense_usage, strict=True):
            # A measured budget is trusted: measuring again builds a model, and may be noisy.
            if budget.closed_form and usage != self._amount(budget, state.keep) / dense:
                raise ValueError(
                    f"state.usage={state.usage} is not the usage of "
                    f"{tuple(b.name for b in self.budgets)}, which this environment bounds"
                )
        return state

    def _check_weights(self, state: PruningState) -> None:
        """Raise `ValueError` unless the state's weights are those that this recovery leaves."""
        weights = state.weights
        if weights is not None:
            if not self.evaluator.trains:
                raise ValueError(
                    f"state.weights are given, but recovery={self.evaluator.recovery!r} trains none"
                )
            lacking = weights.keep.shape != state.keep.shape or (state.keep & ~weights.keep).any()
            if lacking or (state.metrics and not np.array_equal(weights.keep, state.keep)):
                raise ValueError(
                    "state.weights are of other channels than state.keep; take states from an "
                    "environment with the same task, weights and importance"
                )
        elif self.evaluator.trains and state.metrics is not None and not state.keep.all():
            raise ValueError(
                "state.weights is None, but the state is judged and recovery='finetune' trains; "
                "give the state's weights, or metrics=None to have it trained and judged"
            )

    def _successor(self, state: PruningState, action: Any) -> PruningState:
        """`apply`, where an episode may go on."""
        if self.terminal(state):
            raise ValueError(f"state is terminal ({self._ending(state)}); it has no successor")
        return self.apply(state, action)

    def _completed(self, steps: Sequence[tuple[PruningState, PruningState]]) -> list[Transition]:
        """Judge (state, successor) pairs together, and say what each step gave."""
        judged = self.judge_many([state for step in steps for state in step])
        return [self._completion(*pair) for pair in zip(judged[::2], judged[1::2], strict=True)]

    def _completion(self, before: PruningState, after: PruningState) -> Transition:
        terminated = self.terminal(after)
        terms = self._reward_terms(before, after, terminated)
        return Transition(
            state=after,
            reward=float(sum(terms.values())),
            reward_terms=terms,
            cost=self.excess(after) if terminated else 0.0,
            terminated=terminated,
        )

    def _state(
        self,
        counts: np.ndarray,
        *,
        step: int,
        last_action: np.ndarray,
        requested: int,
        removed: int,
        weights: Weights | None = None,
    ) -> PruningState:
        keep = self.graph.keep_top(self.rank, counts)
        amounts = self._measure(keep, weights)
        return PruningState(
            keep=keep,
            counts=counts,
            step=step,
            metrics=None,
            usage=tuple(a / d for a, d in zip(amounts, self._dense_usage, strict=True)),
            params=int(self.graph.params(keep)) / self._dense_params,
            macs=int(self.graph.macs(keep)) / self._dense_macs,
            last_action=last_action,
            requested=requested,
            removed=removed,
            weights=weights,
        )

    def _measure(self, keep: np.ndarray, start: Weights | None = None) -> tuple[float, ...]:
        """One absolute amount per budget."""
        return tuple(self._amount(budget, keep, start) for budget in self.budgets)

    def _amount(self, budget: Budget, keep: np.ndarray, start: Weights | None = None) -> float:
        def model() -> nn.Module:
            if start is None:
                return self.evaluator.pruned_model(keep)
            # Trained now, for a function that may look at the weights; judging finds it cached.
            trained = self.evaluator.recover_many([keep], [start])[0].weights
            return self.evaluator.pruned_model(keep, trained)

        return budget.measure(self.graph, keep, model)

    def _reward_terms(
        self, before: PruningState, after: PruningState, terminated: bool
    ) -> dict[str, float]:
        assert before.metrics is not None and after.metrics is not None
        outcome = Outcome(
            before.metrics, after.metrics, after, self._dense_params, self._dense_macs, terminated
        )
        terms = self._reward(outcome)
        if not isinstance(terms, Mapping) or not all(map(math.isfinite, terms.values())):
            raise ValueError(
                f"reward function {self._reward!r} returned {terms!r}; "
                "it must return a dict of finite floats"
            )
        return {name: self._reward_scale * float(value) for name, value in terms.items()}

    def _ending(self, state: PruningState) -> str:
        return "all budgets are met" if self.feasible(state) else "nothing more can be removed"


def _in_slot(slot: int, function: Callable[..., PruningState], *given: Any) -> PruningState:
    """What `function` returns; its `ValueError` says which of many states it is about."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"slot {slot}: {error}") from error
