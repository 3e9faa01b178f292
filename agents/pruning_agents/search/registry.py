"""Agents under a name: how each spends a given number of evaluations on an environment.

The command line, the benchmarks and the tests all go through this table, so an agent is available
to the three of them the moment it is registered. It knows no task and writes nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import gymnasium as gym
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor

from pruning_agents import baselines
from pruning_agents.rl_pruner.algorithm import RLPruner
from pruning_agents.search.result import Search, SearchResult
from pruning_agents.search.training import Learner, StopAtEvaluations, begin, train
from pruning_agents.stock.sb3_agents import stock_agents

__all__ = [
    "AgentEntry",
    "Search",
    "SearchFunction",
    "StopAtEvaluations",
    "agent_names",
    "get_agent",
    "register_agent",
]


#: (environment, evaluations to spend at most, seed, whether to show progress) -> Search
SearchFunction = Callable[[gym.Env, int, int, bool], Search]


@dataclass(frozen=True)
class AgentEntry:
    """A registered agent.

    Attributes:
        name: what users type.
        summary: one line for listings.
        search: spends evaluations on an environment.
        seeded: whether another seed can give another result.
        learner: how it is trained, if it learns; it can then be saved and continued.
    """

    name: str
    summary: str
    search: SearchFunction
    seeded: bool = True
    learner: Learner | None = None


_AGENTS: dict[str, AgentEntry] = {}


def register_agent(entry: AgentEntry) -> None:
    """Make an agent known under its name.

    Raises:
        ValueError: if the name is taken.
    """
    if entry.name in _AGENTS:
        raise ValueError(f"agent {entry.name!r} is registered already")
    _AGENTS[entry.name] = entry


def get_agent(name: str) -> AgentEntry:
    """The agent of that name.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in _AGENTS:
        raise ValueError(f"agent={name!r} is not known; registered: {', '.join(_AGENTS)}")
    return _AGENTS[name]


def agent_names() -> tuple[str, ...]:
    """Names of the registered agents, in the order of registration."""
    return tuple(_AGENTS)


class BaselineFunction(Protocol):
    """What a baseline is: see `pruning_agents.baselines`."""

    def __call__(
        self, env: gym.Env, evaluations: int, seed: int, *, progress_bar: bool
    ) -> SearchResult | None:
        """Spend evaluations and return the best feasible pruning found."""


def _register_baseline(
    name: str, summary: str, function: BaselineFunction, seeded: bool = True
) -> None:
    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        return Search(function(env, evaluations, seed, progress_bar=progress_bar))

    register_agent(AgentEntry(name, summary, search, seeded))


def _register_learner(learner: Learner, summary: str) -> None:
    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        return train(begin(learner, env, seed), evaluations, progress_bar)[0]

    register_agent(AgentEntry(learner.name, summary, search, learner=learner))


def _rl_pruner(name: str, policy: str) -> Learner:
    def make(env: gym.Env, seed: int, tensorboard_log: str | None) -> BaseAlgorithm:
        return RLPruner(policy, Monitor(env), seed=seed, tensorboard_log=tensorboard_log)

    def incumbent(agent: BaseAlgorithm) -> SearchResult | None:
        assert isinstance(agent, RLPruner)
        found = agent.incumbent
        return None if found is None else dataclasses.replace(found, agent=name)

    return Learner(name, RLPruner, make, Monitor, incumbent, paced=True)


_register_baseline(
    "uniform", "the same fraction of every group; one evaluation", baselines.uniform, seeded=False
)
_register_baseline(
    "global-l1",
    "one threshold on l1 norms per group mean; one evaluation",
    baselines.global_l1,
    seeded=False,
)
_register_baseline(
    "global-taylor",
    "one threshold on Taylor scores; one evaluation",
    baselines.global_taylor,
    seeded=False,
)
_register_baseline(
    "sensitivity-greedy",
    "probes each group alone, then takes the cheapest channels",
    baselines.sensitivity_greedy,
    seeded=False,
)
_register_baseline(
    "random-policy", "episodes of random actions, the best end", baselines.random_policy
)
_register_baseline(
    "random-search", "random distributions, one evaluation each", baselines.random_search
)
_register_baseline(
    "hill-climbing", "disturbs the best distribution so far", baselines.hill_climbing
)
_register_baseline(
    "beam-search",
    "the best few states, each branched into every group",
    baselines.beam_search,
    False,
)
_register_baseline("cem", "the cross-entropy method over logits", baselines.cem)
_register_learner(
    _rl_pruner("rl-pruner", "DistributionPolicy"), "distribution policy with a replay buffer"
)
_register_learner(
    _rl_pruner("rl-pruner-groupwise", "GroupwisePolicy"),
    "the same, its distribution from what is observed",
)
for _agent in stock_agents():
    _register_learner(_agent.learner, _agent.summary)
