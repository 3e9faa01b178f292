"""What a search found: the record that every agent and baseline returns, and its book-keeping.

Only feasible states that were judged on search-val enter. Nothing here knows how the candidates
were chosen, and nothing here evaluates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from stable_baselines3.common.base_class import BaseAlgorithm

from pruning_agents.search.rollout import feasible_end
from pruning_env.process.dynamics import PruningState, Transition

#: Why a search ended, by the word that stands for it in rows.
ENDINGS = {
    "spent": "all evaluations are spent",
    "visits": "nearly all it tried was known already, which costs no evaluation: it gave up after "
    "20 visits per evaluation",
    "nothing new": "the method had nothing more to try",
}


def ending(left: int, tired: bool) -> str:
    """The key of `ENDINGS` for a search that ended.

    Args:
        left: evaluations that it could still have spent.
        tired: whether it had made as many visits as it may.
    """
    return "spent" if left <= 0 else "visits" if tired else "nothing new"


@dataclass(frozen=True)
class SearchResult:
    """The best feasible pruning that a search found, and the way there.

    Attributes:
        agent: registered name of the method.
        evaluations: evaluations the search had spent when this record was made (the evaluator's
            count, so repeat visits answered from its cache are free).
        state: the incumbent, judged on search-val.
        history: (evaluations, search-val accuracy) at each improvement, both rising.
        ended: why the search ended, of `ENDINGS`; "" if it goes on, or nobody says.
    """

    agent: str
    evaluations: int
    state: PruningState
    history: tuple[tuple[int, float], ...]
    ended: str = ""

    @property
    def accuracy(self) -> float:
        """Search-val accuracy of the incumbent, in [0, 1]."""
        assert self.state.metrics is not None
        return self.state.metrics.accuracy

    def __str__(self) -> str:
        kept = ", ".join(map(str, self.state.counts))
        return (
            f"{self.agent}: search-val accuracy {self.accuracy:.2%} with {self.state.params:.1%} "
            f"of the parameters and {self.state.macs:.1%} of the MACs, found in {self.evaluations} "
            f"evaluations; channels kept per group: {kept}"
        )


@dataclass(frozen=True)
class Search:
    """What a search left behind: its result, None if nothing feasible, and the agent if it has one.

    An agent that can be saved and asked again is an SB3 algorithm; the baselines have none.

    Attributes:
        result: the best feasible pruning.
        algorithm: the agent.
        ended: why the search ended, of `ENDINGS`; "": what the result says.
    """

    result: SearchResult | None
    algorithm: BaseAlgorithm | None = None
    ended: str = ""

    @property
    def why(self) -> str:
        """Why it ended, of `ENDINGS`; "" where nobody says."""
        return self.ended or ("" if self.result is None else self.result.ended)


class IncumbentTracker:
    """Keeps the best feasible state offered so far.

    "Best" is the higher search-val accuracy, and the lower loss between equals.
    """

    def __init__(self, agent: str) -> None:
        self.agent = agent
        self.state: PruningState | None = None
        self.history: tuple[tuple[int, float], ...] = ()

    def improves(self, state: PruningState) -> bool:
        """Whether a feasible, judged `state` beats the incumbent.

        Raises:
            ValueError: if `state` was never judged.
        """
        if state.metrics is None:
            raise ValueError("state has no metrics: judge it before offering it")
        if self.state is None or self.state.metrics is None:
            return True
        best, new = self.state.metrics, state.metrics
        return (new.accuracy, -new.loss) > (best.accuracy, -best.loss)

    def offer(self, state: PruningState, evaluations: int) -> bool:
        """Take `state` as the incumbent when it is better; say whether it was."""
        if not self.improves(state):
            return False
        assert state.metrics is not None
        self.state = state
        self.history = (*self.history, (evaluations, state.metrics.accuracy))
        return True

    def offer_ends(self, transitions: Sequence[Transition], before: int, after: int) -> None:
        """Offer the feasible ends among transitions that were judged together.

        Args:
            transitions: in the order of their candidates.
            before: evaluations spent before they were judged.
            after: evaluations spent since. An end that was judged earlier costs none, which cannot
                be seen here; so each counts as found after at most as many evaluations as
                different networks came with it, and never after more than were spent.
        """
        different: set[bytes] = set()
        for transition in transitions:
            different.add(transition.state.keep.tobytes())
            if feasible_end(transition):
                self.offer(transition.state, min(before + len(different), after))

    def offer_raced(self, transitions: Iterable[Transition], after: int) -> None:
        """Offer the feasible ends among those that went through a race, known when it was over.

        Args:
            transitions: in the order of their candidates.
            after: evaluations spent by then.
        """
        for transition in transitions:
            if feasible_end(transition):
                self.offer(transition.state, after)

    def result(self, evaluations: int) -> SearchResult | None:
        """The record after `evaluations`, or None while nothing feasible was offered."""
        if self.state is None:
            return None
        return SearchResult(self.agent, evaluations, self.state, self.history)
