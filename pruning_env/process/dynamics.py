"""The pruning process: states, transitions, and when an episode ends.

This is the only place with pruning semantics; every environment is a face of it. Which channels of
a group go is fixed at construction (lowest importance in the dense network first), so a state is a
function of how many channels each group keeps, unless `rank_every` has them ranked anew. Knows
nothing of Gymnasium environments, seeds, observations or rendering.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pruning_env.arguments import check_count
from pruning_env.process.constraints import make_constraint
from pruning_env.process.cutting import Cutting
from pruning_env.process.judging import StateJudge
from pruning_env.process.latency_budget import LatencySettings
from pruning_env.process.payment import Payment
from pruning_env.process.ranking import Ranking
from pruning_env.process.rewards import RewardFunction, accuracy_change
from pruning_env.process.rounding import WidthUnits
from pruning_env.process.sensitivity import SensitivityMeter
from pruning_env.process.state import PruningState, Transition
from pruning_env.process.state_check import StateCheck
from pruning_env.process.usage import NetworkUsage, UsageMeter

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.actions import ActionKind
    from pruning_env.process.budgets import Budget

__all__ = ["PruningDynamics", "PruningState", "Transition"]


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
        reward: what a step earns, and, if it is a lazy `Reward`, that no state before an episode's
            end is judged; see rewards.py.
        reward_scale: factor on every reward term, finite and above 0.
        filters_per_step: in (0, 1], share of the removable filters and neurons that a step removes,
            as nearly as whole channels can, instead of `channels_per_step`; None for that.
        importance: a registered importance's name. `"random"` is one fixed random ranking.
        rank_every: n: channels are ranked anew in states whose step n divides, by the importance of
            their own network; None: as in the dense network.
        sensitivity: what of it is measured; see sensitivity.py.
        sensitivity_every: n: states whose step n divides carry the sensitivity of their own
            network, the others the last one measured before them; None: no state carries any.
        constraint: how far steps go and when an episode ends; see constraints.py.
        max_steps: steps of an episode at most; None for no such end.
        recover_every: n: where the evaluator trains commits only, those whose step n divides, and
            the last of an episode.
        latency: how the budget `latency` is measured.

    Attributes:
        graph: the dense network's channels.
        evaluator: judges keep masks on search-val.
        budgets: what must become small.
        action: the action kind.
        ranking: which channels go first, in each state.
        sensitivity: measures it.
        units: the steps in which widths shrink.
        per_step: channels that a step announces, unless action or constraint say otherwise.
        constraint: the constraint, with its `max_steps`.
        payment: what pays a step.
        reward: as given.
        reward_scale: as given.
        sensitivity_every: as given.
        recover_every: as given.
        lazy: whether the reward judges an episode's last state only.
        unmet: the reward's price of an episode's end with a budget unmet.

    Raises:
        ValueError: a bad argument, nothing can be pruned, or a budget cannot be met.
    """

    def __init__(
        self,
        graph: ChannelGraph,
        evaluator: Evaluator,
        budgets: tuple[Budget, ...],
        action: ActionKind,
        *,
        channels_per_step: float = 0.05,
        filters_per_step: float | None = None,
        round_to: int = 1,
        reward: RewardFunction = accuracy_change,
        reward_scale: float = 1.0,
        importance: str = "taylor",
        rank_every: int | None = None,
        sensitivity: str = "importance",
        sensitivity_every: int | None = None,
        constraint: str = "terminate",
        max_steps: int | None = None,
        recover_every: int = 1,
        latency: LatencySettings = LatencySettings(),  # noqa: B008  frozen
    ) -> None:
        if not graph.groups:
            raise ValueError(
                f"graph has no removable channel; frozen layers and reasons: {graph.frozen}"
            )
        self.constraint = make_constraint(constraint, max_steps)
        self.action = action
        self.graph = graph
        self.evaluator = evaluator
        self.payment = Payment(graph, evaluator, reward, reward_scale)
        self.reward, self.reward_scale = reward, self.payment.reward_scale
        self.lazy, self.unmet = self.payment.lazy, self.payment.unmet
        if sensitivity_every is not None:
            sensitivity_every = check_count("sensitivity_every", sensitivity_every)
        self.sensitivity_every = sensitivity_every
        self.recover_every = check_count("recover_every", recover_every)
        self.ranking = Ranking(graph, evaluator, importance, rank_every)
        self.units = WidthUnits(graph.sizes, round_to)
        self.sensitivity = SensitivityMeter(
            graph,
            evaluator,
            self.ranking,
            self.units.floors,
            sensitivity,
            dense_importance=importance == "taylor",
        )
        measured = None if sensitivity_every is None else self.sensitivity
        self._judge = StateJudge(evaluator, lazy=self.lazy, sensitivity=measured)
        self._measured = measured
        self._latency = latency
        self._step_sizes = channels_per_step, filters_per_step
        self._limit(budgets)

    def _limit(self, budgets: tuple[Budget, ...]) -> None:
        """Set all that depends on the budgets."""
        self.budgets = budgets
        self.usage_meter = UsageMeter(
            self.graph,
            self.evaluator,
            budgets,
            self.units.floors,
            self._latency,
            self.units.round_to,
        )
        channels_per_step, filters_per_step = self._step_sizes
        self._cutting = Cutting(
            self.graph,
            self.action,
            self.ranking,
            self.usage_meter,
            channels_per_step=channels_per_step,
            filters_per_step=filters_per_step,
            units=self.units,
        )
        self._cutting.check(self.constraint)
        self.per_step = self._cutting.per_step
        self._recognise = StateCheck(
            self.graph,
            self.evaluator,
            self.usage_meter,
            self.units,
            self.ranking,
            sensitivity=self._measured,
        )

    @property
    def scores(self) -> NDArray[np.float64]:
        """(C,) importance in the dense network, read-only; see `Ranking.scores`."""
        return self.ranking.scores

    @property
    def rank(self) -> NDArray[np.int64]:
        """(C,) rank inside the group there, 0 = most important = last to go, read-only."""
        return self.ranking.rank

    def under(self, constraint: str) -> PruningDynamics:
        """The same process by another constraint, with as many steps; all else is shared.

        What a policy that was trained without enforcement does where the budgets are enforced.

        Raises:
            ValueError: no such constraint, or not with this action, number of steps or budgets.
        """
        twin = copy.copy(self)
        twin.constraint = make_constraint(constraint, self.constraint.max_steps)
        self._cutting.check(twin.constraint)
        return twin

    def within(self, budgets: tuple[Budget, ...]) -> PruningDynamics:
        """The same process with other budgets; network, ranking and cache are shared.

        Raises:
            ValueError: a budget cannot be met.
        """
        twin = copy.copy(self)
        twin._limit(budgets)
        return twin

    def initial(self) -> PruningState:
        """The dense network, judged."""
        nothing = np.zeros(len(self.graph.groups))
        keep = self.graph.full()
        dense = PruningState(
            keep=keep,
            counts=self.graph.sizes,
            step=0,
            metrics=None,
            usage=NetworkUsage(self.usage_meter, keep).usage,
            params=1.0,
            macs=1.0,
            last_action=nothing,
            requested=0,
            removed=0,
            sensitivity=None if self.sensitivity_every is None else self.sensitivity.of_dense,
        )
        return self.judge(dense)

    def apply(self, state: PruningState, action: Any) -> PruningState:
        """Prune and count, but evaluate nothing: the returned state has `metrics=None`.

        What the constraint lets the action take goes, or as much as the floors leave: `requested`
        and `removed` say how much that is. In units of `round_to`, the least important channels of
        each group first.

        Raises:
            ValueError: a bad action; see the action kind's `parse`.
        """
        every = self.sensitivity_every
        due = every is not None and (state.step + 1) % every == 0
        return self._cutting.apply(
            state,
            action,
            self.constraint,
            known=(state.metrics or state.known) if self.lazy else None,
            sensitivity=None if due else state.sensitivity,
        )

    def later(self, step: int, most: int) -> int:
        """Most units that an episode's steps after the `step`-th can take, of `most` that are left.

        Where groups take turns, it is what the later groups hold instead.
        """
        return self._cutting.later(self.constraint, step, most)

    def judge(self, state: PruningState) -> PruningState:
        """The same state with its search-val metrics; one evaluation unless it has them."""
        return self.judge_many([state])[0]

    def judge_many(self, states: Sequence[PruningState]) -> list[PruningState]:
        """The same states with their metrics; those that have none are evaluated together."""
        return self._judge.judge_many(states)

    def settle_many(self, states: Sequence[PruningState]) -> list[PruningState]:
        """The same states as an episode has them: judged, or with the metrics `known` before.

        States in which an episode goes on stay unjudged where the reward is lazy, and where they
        say what is known before them. Else that is, by a lazy reward, the dense network's metrics.
        By `sensitivity_every`, those that carry no sensitivity get that of their own network (of
        the untrained one where recovery trains and the state stays unjudged).
        """
        return self._judge.settle_many(states, self.terminal)

    def transition(self, state: PruningState, action: Any) -> Transition:
        """One step: prune, judge, reward, cost, and whether the episode is over.

        Where only commits are trained, a candidate: its network is as it was cut; see `commit`.

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
        return self._completed(self._steps(states, actions))

    def commit(self, state: PruningState, action: Any) -> Transition:
        """The step that an episode makes: `transition`, with its network trained where it is due.

        Only with `recover_when="commit"` the two differ. Then a trained network costs an
        evaluation, whether or not its candidate was judged.

        Raises:
            ValueError: as `transition`.
        """
        return self.commit_many([state], [action])[0]

    def commit_many(
        self,
        states: Sequence[PruningState],
        actions: Sequence[Any] | np.ndarray,
        slots: Sequence[int] | None = None,
    ) -> list[Transition]:
        """`commit` for each of the states; the rest as in `transition_many`.

        Args:
            states: where each step starts.
            actions: one per state.
            slots: what an error calls each state; None: its position.
        """
        steps = self._steps(states, actions, slots)
        return self._completed([(state, self._trained(after)) for state, after in steps])

    def committed(self, state: PruningState, candidate: Transition) -> Transition:
        """What `commit` gives where `transition` from `state` gave `candidate`."""
        after = self._trained(candidate.state)
        return candidate if after is candidate.state else self._completed([(state, after)])[0]

    def _trained(self, state: PruningState) -> PruningState:
        """The state with its network trained, if only commits are and it is due."""
        if not self.evaluator.trains_commits:
            return state
        if state.step % self.recover_every != 0 and not self.terminal(state):
            return state
        every = self.sensitivity_every
        if every is not None and state.step % every == 0:  # of the network as it will be
            state = dataclasses.replace(state, sensitivity=None)
        return self._judge.train(state)

    def _steps(
        self,
        states: Sequence[PruningState],
        actions: Sequence[Any] | np.ndarray,
        slots: Sequence[int] | None = None,
    ) -> list[tuple[PruningState, PruningState]]:
        """(state, successor) pairs, not judged."""
        if len(states) != len(actions):
            raise ValueError(
                f"actions: {len(actions)} given for {len(states)} states; give one each"
            )
        return [
            (state, _in_slot(slot, self._successor, state, action))
            for slot, state, action in zip(
                range(len(states)) if slots is None else slots, states, actions, strict=True
            )
        ]

    def feasible(self, state: PruningState) -> bool:
        """Whether every budget is met."""
        return all(u <= b.limit for u, b in zip(state.usage, self.budgets, strict=True))

    def exhausted(self, state: PruningState) -> bool:
        """Whether every group is at its floor."""
        return not self.units.left(state.counts).any()

    def terminal(self, state: PruningState) -> bool:
        """Whether an episode that reaches `state` is over; the dense network never is."""
        return state.step > 0 and self.constraint.over(
            state.step, self.feasible(state), self.exhausted(state)
        )

    def excess(self, state: PruningState) -> float:
        """How far usage is above the limits, summed over the budgets; 0 when feasible."""
        return float(sum(b.excess(u) for u, b in zip(state.usage, self.budgets, strict=True)))

    def no_reward_terms(self, state: PruningState) -> dict[str, float]:
        """The reward's terms, all 0: what a reset reports."""
        settled = self.settle_many([state])[0]
        return dict.fromkeys(self.reward_terms(settled, settled, False), 0.0)

    def check(self, state: Any) -> PruningState:
        """Return `state`, judged where an episode would judge it, if this process can be in it.

        Metrics that the state brings along are trusted.

        Raises:
            ValueError: it is no `PruningState`, or of another network, ranking or budget.
        """
        return self.settle_many([self._recognise(state)])[0]

    def check_many(self, states: Sequence[Any]) -> list[PruningState]:
        """`check` for each of the states; those to be judged are evaluated together.

        Raises:
            ValueError: as `check`, naming the state's position as `slot`; nothing is judged then.
        """
        return self.settle_many(
            [_in_slot(slot, self._recognise, state) for slot, state in enumerate(states)]
        )

    def _successor(self, state: PruningState, action: Any) -> PruningState:
        """`apply`, where an episode may go on."""
        if self.terminal(state):
            raise ValueError(f"state is terminal ({self._ending(state)}); it has no successor")
        return self.apply(state, action)

    def _completed(self, steps: Sequence[tuple[PruningState, PruningState]]) -> list[Transition]:
        """Judge (state, successor) pairs together, and say what each step gave."""
        settled = self.settle_many([state for step in steps for state in step])
        return [self._completion(*pair) for pair in zip(settled[::2], settled[1::2], strict=True)]

    def _completion(self, before: PruningState, after: PruningState) -> Transition:
        terminated = self.terminal(after)
        terms = self.reward_terms(before, after, terminated)
        return Transition(
            state=after,
            reward=float(sum(terms.values())),
            reward_terms=terms,
            cost=self.constraint.cost(after.usage, self.budgets) if terminated else 0.0,
            terminated=terminated,
            feasible=self.feasible(after),
        )

    def worth(self, states: Sequence[PruningState]) -> list[float]:
        """What each state is worth, however it was reached: the measure of a search.

        The reward of an episode that goes from the dense network to the state in one step, and ends
        there. A budget that is unmet counts only where the state is an end. By a reward that is a
        difference of a potential or paid at the end, it is an episode's return.

        Args:
            states: those that are not judged are evaluated, together.
        """
        return [
            float(sum(self._earned(self._dense, state, True, self.terminal(state)).values()))
            for state in self.judge_many(states)
        ]

    @functools.cached_property
    def _dense(self) -> PruningState:
        return self.initial()

    def reward_terms(
        self, before: PruningState, after: PruningState, terminated: bool
    ) -> dict[str, float]:
        """The reward's summands by name, scaled, for a step from `before` to `after`.

        Unless by `constraint="cost"`, the last is what an unmet budget costs; see `unmet_budgets`.

        Raises:
            ValueError: the reward function does not give finite numbers.
        """
        return self._earned(before, after, terminated, terminated)

    def _earned(
        self, before: PruningState, after: PruningState, terminated: bool, final: bool
    ) -> dict[str, float]:
        """`reward_terms`; an unmet budget counts where the step is `final`."""
        excess = self.excess(after) if self.constraint.binding else None
        return self.payment.terms(before, after, terminated, final, excess)

    def _ending(self, state: PruningState) -> str:
        if self.exhausted(state):
            return "nothing more can be removed"
        if self.constraint.max_steps is not None and state.step >= self.constraint.max_steps:
            return f"max_steps={self.constraint.max_steps} are over"
        return "all budgets are met"


def _in_slot(slot: int, function: Callable[..., PruningState], *given: Any) -> PruningState:
    """What `function` returns; its `ValueError` says which of many states it is about."""
    try:
        return function(*given)
    except ValueError as error:
        raise ValueError(f"slot {slot}: {error}") from error
