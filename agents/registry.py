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
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from agents import baselines
from agents.result import SearchResult
from agents.rl_pruner import RLPruner
from agents.spending import MAX_VISITS_PER_EVALUATION


@dataclass(frozen=True)
class Search:
    """What a search left behind: its result, None if nothing feasible, and the agent if it has one.

    An agent that can be saved and asked again is an SB3 algorithm; the baselines have none.
    """

    result: SearchResult | None
    algorithm: BaseAlgorithm | None = None


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
    """

    name: str
    summary: str
    search: SearchFunction
    seeded: bool = True


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


class StopAtEvaluations(BaseCallback):
    """End training once `limit` evaluations were spent since the callback's first training start.

    Evaluations are what the environment's evaluator counts: repeat visits are free.
    """

    def __init__(self, limit: int, bar: tqdm | None = None) -> None:
        super().__init__()
        self.limit = limit
        self.bar = bar
        self.spent = 0
        self._before: int | None = None

    def _evaluations(self) -> int:
        return int(self.training_env.get_attr("evaluations")[0])

    def _on_training_start(self) -> None:
        if self._before is None:
            self._before = self._evaluations()

    def _on_step(self) -> bool:
        assert self._before is not None
        spent = self._evaluations() - self._before
        if self.bar is not None:
            self.bar.update(spent - self.spent)
        self.spent = spent
        return self.spent < self.limit


def spend(algorithm: BaseAlgorithm, evaluations: int, progress_bar: bool = False) -> None:
    """Train until `evaluations` are spent.

    Transitions answered from the evaluator's cache advance `num_timesteps` but spend nothing, so
    training goes on, without a reset, until the evaluations are spent; it gives up after
    `MAX_VISITS_PER_EVALUATION` times as many transitions.
    """
    start = algorithm.num_timesteps
    with tqdm(total=evaluations, desc="training", disable=not progress_bar) as bar:
        callback = StopAtEvaluations(evaluations, bar)
        while callback.spent < evaluations:
            transitions = algorithm.num_timesteps - start
            if transitions >= MAX_VISITS_PER_EVALUATION * evaluations:
                break
            algorithm.learn(
                evaluations - callback.spent,
                callback=callback,
                reset_num_timesteps=transitions == 0,
            )


class BaselineFunction(Protocol):
    """What a baseline is: see `agents.baselines`."""

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


def _register_rl_pruner(name: str, summary: str, policy: str) -> None:
    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        agent = RLPruner(policy, env, seed=seed)
        spend(agent, evaluations, progress_bar)
        found = agent.incumbent
        return Search(None if found is None else dataclasses.replace(found, agent=name), agent)

    register_agent(AgentEntry(name, summary, search))


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
_register_rl_pruner("rl-pruner", "distribution policy with a replay buffer", "DistributionPolicy")
_register_rl_pruner(
    "rl-pruner-groupwise", "the same, its distribution from what is observed", "GroupwisePolicy"
)
