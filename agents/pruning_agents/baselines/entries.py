"""The baselines as registered agents."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Protocol

import gymnasium as gym

from pruning_agents import baselines
from pruning_agents.baselines.rules import best_of_rules, follow_rule
from pruning_agents.proposals.rules import RULES
from pruning_agents.search.registry import AgentEntry
from pruning_agents.search.result import Search, SearchResult

__all__ = ["entry"]


class BaselineFunction(Protocol):
    """What a baseline is: see `pruning_agents.baselines`."""

    def __call__(
        self, env: gym.Env, evaluations: int, seed: int, *, progress_bar: bool
    ) -> SearchResult | None:
        """Spend evaluations and return the best feasible pruning found."""


#: By name, and whether another seed can give another result.
_BASELINES: dict[str, tuple[BaselineFunction, bool]] = {
    **{name: (partial(follow_rule, name), False) for name in RULES},
    "best-of-rules": (best_of_rules, False),
    "sensitivity-greedy": (baselines.sensitivity_greedy, False),
    "random-policy": (baselines.random_policy, True),
    "random-search": (baselines.random_search, True),
    "hill-climbing": (baselines.hill_climbing, True),
    "beam-search": (baselines.beam_search, False),
    "cem": (baselines.cem, True),
    "cem-from-rules": (partial(baselines.cem, warm_start="rules"), True),
}


def entry(name: str, summary: str) -> AgentEntry:
    """The baseline of that name."""
    function, seeded = _BASELINES[name]

    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        found = function(env, evaluations, seed, progress_bar=progress_bar)
        if found is None:
            return Search(None)
        # Some allow themselves fewer: a rule of thumb has one network to judge.
        few = found.ended == "spent" and found.evaluations < evaluations
        ended = "nothing new" if few else found.ended
        return Search(dataclasses.replace(found, agent=name, ended=ended))

    return AgentEntry(name, summary, search, seeded)
