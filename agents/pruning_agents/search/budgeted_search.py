"""What a search spends and the best it found: book-keeping around the pure transition.

Every method without learning, and `RLPruner` in its own way, judges batches of candidates until its
evaluations are gone. The counting, the incumbent and the progress bar are here, once. Nothing here
knows how candidates are chosen.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from types import TracebackType

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from pruning_agents.search.racing import race
from pruning_agents.search.result import IncumbentTracker, SearchResult, ending
from pruning_agents.search.rollout import approach
from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition

#: Candidates visited per evaluation before giving up: where a network has few distinct prunings,
#: nearly all are repeat visits, which the evaluator answers from its cache for free.
MAX_VISITS_PER_EVALUATION = 20


class BudgetedSearch:
    """A limited number of evaluations, and what came of those that are spent.

    Use it as a context manager: it closes its progress bar.

    Args:
        agent: registered name of the method.
        env: a CNNPrune environment, which is not stepped.
        evaluations: evaluations to spend at most, at least 1, by the evaluator's count: repeat
            visits are free.
        progress_bar: whether to show the evaluations spent on the standard error stream.

    Attributes:
        dynamics: of the environment.
        start: the dense network, judged.
        groups: L, the number of groups.

    Raises:
        ValueError: if `evaluations` is below 1.
    """

    def __init__(
        self, agent: str, env: gym.Env, evaluations: int, progress_bar: bool = False
    ) -> None:
        if evaluations < 1:
            raise ValueError(f"evaluations={evaluations} must be at least 1")
        self.dynamics: PruningDynamics = env.unwrapped.dynamics  # type: ignore[attr-defined]
        self.start: PruningState = self.dynamics.initial()
        self.groups = len(self.dynamics.graph.groups)
        self._limit = evaluations
        self._before = self.dynamics.evaluator.evaluations
        self._visits = 0
        self._tracker = IncumbentTracker(agent)
        self._bar = tqdm(total=evaluations, desc=agent, disable=not progress_bar)

    def __enter__(self) -> BudgetedSearch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    @property
    def spent(self) -> int:
        """Evaluations since this object was made."""
        return self.dynamics.evaluator.evaluations - self._before

    @property
    def left(self) -> int:
        """Evaluations that may still be spent; 0 also after too many visits that cost nothing."""
        return 0 if self._tired else self._limit - self.spent

    @property
    def _tired(self) -> bool:
        return self._visits >= MAX_VISITS_PER_EVALUATION * self._limit

    @property
    def result(self) -> SearchResult | None:
        """The best feasible end so far, as of a search that ends here; None while there is none."""
        found = self._tracker.result(self.spent)
        ended = ending(self._limit - self.spent, self._tired)
        return None if found is None else dataclasses.replace(found, ended=ended)

    def finish(self, actions: Iterable[NDArray[np.floating]]) -> list[Transition]:
        """Keep each action (L,) from the dense network to the end of the episode, and judge that.

        As many as are sure to be within the limit are judged, the others dropped.
        """
        kept = list(actions)[: self.left]
        ahead = [approach(self.dynamics, self.start, action) for action in kept]
        return self.steps(ahead, kept)

    def worth(self, actions: Iterable[NDArray[np.floating]]) -> list[float]:
        """What each action's end is worth by the environment's reward; see `finish`.

        Where the environment has races (`race=`), this is one: who falls out is worth what a part
        of the images says.
        """
        if self.dynamics.evaluator.race is None:
            return self.dynamics.worth([end.state for end in self.finish(actions)])
        kept = list(actions)[: self.left]
        ahead = [approach(self.dynamics, self.start, action) for action in kept]
        values, through = race(self.dynamics, ahead, kept)
        self._visits += len(kept)
        self._tracker.offer_raced((end for end, _ in through), self.spent)
        self._bar.update(self.spent - self._bar.n)
        return values.tolist()

    def steps(
        self, states: Sequence[PruningState], actions: Sequence[NDArray[np.floating]]
    ) -> list[Transition]:
        """Make one step from each state, and judge all together; the excess is dropped as above."""
        count = min(len(states), self.left)
        before = self.spent
        transitions = self.dynamics.transition_many(states[:count], actions[:count])
        self._visits += count
        self._tracker.offer_ends(transitions, before, self.spent)
        self._bar.update(self.spent - self._bar.n)
        return transitions
