"""Agents under a name: how each spends a given number of evaluations on an environment.

The command line, the benchmarks and the tests all go through this table, so an agent is available
to the three of them the moment it is registered. It knows no task and writes nothing; what a
built-in agent is made of is imported when it is asked for, so that a listing is quick.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import gymnasium as gym

    from pruning_agents.search.result import Search
    from pruning_agents.search.training import Learner

__all__ = [
    "AgentEntry",
    "AsPublished",
    "SearchFunction",
    "agent_names",
    "agent_summaries",
    "get_agent",
    "register_agent",
]


#: (environment, evaluations to spend at most, seed, whether to show progress) -> Search
SearchFunction = Callable[["gym.Env", int, int, bool], "Search"]


@dataclass(frozen=True)
class AsPublished:
    """What a paper has instead of an agent's defaults.

    Attributes:
        agent: registered name of the agent with the paper's own arguments.
        settings: keyword arguments of the environment as the paper has it.
    """

    agent: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class AgentEntry:
    """A registered agent.

    Attributes:
        name: what users type.
        summary: one line for listings.
        search: spends evaluations on an environment.
        seeded: whether another seed can give another result.
        learner: how it is trained, if it learns; it can then be saved and continued.
        published: the recipe of the paper that it is of, where that is another.
    """

    name: str
    summary: str
    search: SearchFunction
    seeded: bool = True
    learner: Learner | None = None
    published: AsPublished | None = None


@dataclass(frozen=True)
class _BuiltIn:
    """An agent of this package.

    Attributes:
        summary: one line for listings.
        home: the module whose `entry(name, summary)` makes its entry.
    """

    summary: str
    home: str


_BASELINES = "pruning_agents.baselines.entries"
_RL_PRUNER = "pruning_agents.rl_pruner.entries"
_STOCK = "pruning_agents.stock.entries"

_AGENTS: dict[str, AgentEntry | _BuiltIn] = {
    "uniform": _BuiltIn("the same fraction of every group; one evaluation", _BASELINES),
    "global-l1": _BuiltIn("one threshold on l1 norms per group mean; one evaluation", _BASELINES),
    "global-l1-raw": _BuiltIn("one threshold on l1 norms as they are; one evaluation", _BASELINES),
    "global-l1-per-saving": _BuiltIn(
        "l1 norms per group mean, per MAC or parameter saved; one evaluation", _BASELINES
    ),
    "global-taylor": _BuiltIn("one threshold on Taylor scores; one evaluation", _BASELINES),
    "global-taylor-normalised": _BuiltIn(
        "one threshold on Taylor scores per group mean; one evaluation", _BASELINES
    ),
    "global-taylor-per-saving": _BuiltIn(
        "Taylor scores per MAC or parameter saved; one evaluation", _BASELINES
    ),
    "lamp": _BuiltIn("one threshold on layer-adaptive magnitudes; one evaluation", _BASELINES),
    "sensitivity-maximum": _BuiltIn(
        "the largest drop that all groups may have, by curves on search-train; one evaluation",
        _BASELINES,
    ),
    "best-of-rules": _BuiltIn("all of the above, the best; one evaluation each", _BASELINES),
    "sensitivity-greedy": _BuiltIn(
        "probes each group alone, then takes the cheapest channels", _BASELINES
    ),
    "random-policy": _BuiltIn("episodes of random actions, the best end", _BASELINES),
    "random-search": _BuiltIn("random distributions, one evaluation each", _BASELINES),
    "hill-climbing": _BuiltIn("disturbs the best distribution so far", _BASELINES),
    "beam-search": _BuiltIn("the best few states, each branched into every group", _BASELINES),
    "cem": _BuiltIn("the cross-entropy method over logits", _BASELINES),
    "cem-from-rules": _BuiltIn("the same, from the best that rules of thumb propose", _BASELINES),
    "rl-pruner": _BuiltIn("distribution policy with a replay buffer", _RL_PRUNER),
    "rl-pruner-from-rules": _BuiltIn(
        "the same, from the best that rules of thumb propose", _RL_PRUNER
    ),
    "rl-pruner-groupwise": _BuiltIn(
        "rl-pruner, its distribution from what is observed", _RL_PRUNER
    ),
    "rl-pruner-published": _BuiltIn("RL-Pruner with the settings of its paper", _RL_PRUNER),
    "ppo": _BuiltIn("Stable-Baselines3's PPO", _STOCK),
    "a2c": _BuiltIn("Stable-Baselines3's A2C", _STOCK),
    "sac": _BuiltIn("Stable-Baselines3's SAC", _STOCK),
    "td3": _BuiltIn("Stable-Baselines3's TD3", _STOCK),
    "ddpg": _BuiltIn("Stable-Baselines3's DDPG", _STOCK),
}
if find_spec("sb3_contrib") is not None:
    _AGENTS |= {
        "trpo": _BuiltIn("sb3-contrib's TRPO", _STOCK),
        "tqc": _BuiltIn("sb3-contrib's TQC", _STOCK),
    }
_AGENTS["ppo-lagrangian"] = _BuiltIn(
    "PPO under a limit on costs; needs --constraint cost and --max-steps", _STOCK
)


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
    found = _AGENTS[name]
    if isinstance(found, _BuiltIn):
        home: Any = importlib.import_module(found.home)
        found = _AGENTS[name] = home.entry(name, found.summary)
        assert isinstance(found, AgentEntry)
    return found


def agent_names() -> tuple[str, ...]:
    """Names of the registered agents, in the order of registration."""
    return tuple(_AGENTS)


def agent_summaries() -> dict[str, str]:
    """One line on each registered agent, by name; none is imported."""
    return {name: found.summary for name, found in _AGENTS.items()}
