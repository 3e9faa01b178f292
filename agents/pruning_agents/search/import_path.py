"""Agents by import path: somebody's own function or class, as an entry like the registered ones.

A function `search(env, evaluations, seed, progress_bar)` is given what it asks for of these. A
class with the interface of Stable-Baselines3's algorithms is made and told to learn. Either may say
nothing of what it has found: the environment that it is given remembers the best feasible end of
its episodes, and makes no step once the evaluations are spent. Knows no task and no agent by name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor

from pruning_agents.former_names import present_name
from pruning_agents.search.budgeted_search import MAX_VISITS_PER_EVALUATION
from pruning_agents.search.recording import EvaluationsSpent, LimitedRecorder
from pruning_agents.search.registry import AgentEntry, SearchFunction, get_agent
from pruning_agents.search.result import Search, SearchResult
from pruning_agents.search.training import Learner, begin, train

__all__ = ["resolve_agent"]

#: What a function is offered, in the order in which it is given to parameters of other names.
_OFFERED = ("env", "evaluations", "seed", "progress_bar")

_INTERFACE = ("learn", "predict")


def resolve_agent(name: str) -> AgentEntry:
    """The registered agent of that name, or what is at "module:name".

    A function gets those of `env`, `evaluations`, `seed` and `progress_bar` that it has parameters
    for: by name, and what is left to its other parameters without a default, in this order. It
    returns a `SearchResult`, or a `Search` if a policy is left behind, or None: then its result is
    the best feasible end of the episodes that it stepped in `env`. `env.action_space` is seeded.

    A class has `__init__(policy, env, seed=...)`, `learn(total_timesteps, callback)` and `predict`,
    as Stable-Baselines3's algorithms have; its result is the best feasible end, too. What is no
    `BaseAlgorithm` is given a function as callback, which says False when the evaluations are
    spent.

    Where `env` is stepped after that, `EvaluationsSpent` is raised, which ends the search well.

    Raises:
        ValueError: if there is neither; the message says which are registered, or what is missing.
    """
    if ":" not in name:
        return get_agent(name)
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(present_name(module)), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"agent={name!r} cannot be imported: {error}") from error
    if inspect.isclass(found):
        missing = [method for method in _INTERFACE if not callable(getattr(found, method, None))]
        if missing:
            raise ValueError(f"agent={name!r} is a class without {' and '.join(missing)}")
        return AgentEntry(name, f"the class {attribute} of {module}", _class_search(name, found))
    if not callable(found):
        raise ValueError(f"agent={name!r} is a {type(found).__name__}, which cannot be called")
    _arguments(name, found, dict.fromkeys(_OFFERED))  # what does not fit is refused before it runs
    return AgentEntry(name, f"the function {attribute} of {module}", _function_search(name, found))


def _function_search(name: str, function: Callable[..., Any]) -> SearchFunction:
    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        env.action_space.seed(seed)
        limited = LimitedRecorder(env, name, evaluations)
        values = (limited, evaluations, seed, progress_bar)
        given, named = _arguments(name, function, dict(zip(_OFFERED, values, strict=True)))
        try:
            found = function(*given, **named)
        except EvaluationsSpent:
            found = None
        if found is None:
            return Search(limited.incumbent(), ended=limited.ended)
        if isinstance(found, SearchResult):
            return Search(found)
        if isinstance(found, Search):
            return found
        raise TypeError(
            f"{name} returned a {type(found).__name__}; return a SearchResult, a Search or None"
        )

    return search


def _class_search(name: str, algorithm: type[Any]) -> SearchFunction:
    def search(env: gym.Env, evaluations: int, seed: int, progress_bar: bool) -> Search:
        env.action_space.seed(seed)
        limited = LimitedRecorder(env, name, evaluations)

        def make(around: gym.Env, seed: int, tensorboard_log: str | None) -> Any:
            return _made(algorithm, Monitor(around), seed)

        learner = Learner(name, algorithm, make, Monitor, lambda agent: limited.incumbent())
        start = begin(learner, limited, seed)
        try:
            if isinstance(start.agent, BaseAlgorithm):
                train(start, evaluations, progress_bar)
            else:
                start.agent.learn(
                    total_timesteps=MAX_VISITS_PER_EVALUATION * evaluations,
                    callback=lambda *_: limited.left > 0,
                )
        except EvaluationsSpent:
            pass
        return Search(limited.incumbent(), start.agent, limited.ended)

    return search


def _made(algorithm: type[Any], env: gym.Env, seed: int) -> Any:
    """A new agent; networks as small as these are no work for an accelerator."""
    dictionary = isinstance(env.observation_space, spaces.Dict)
    policy = "MultiInputPolicy" if dictionary else "MlpPolicy"
    aliases = getattr(algorithm, "policy_aliases", {})
    if aliases and policy not in aliases:
        policy = next(iter(aliases))
    parameters = inspect.signature(algorithm).parameters
    named = {k: v for k, v in {"seed": seed, "device": "cpu"}.items() if k in parameters}
    return algorithm(policy, env, **named)


def _arguments(
    name: str, function: Callable[..., Any], offered: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """What to call a function with: positional arguments, and those by name.

    Raises:
        ValueError: it needs more than is offered.
    """
    parameters = inspect.signature(function).parameters.values()
    names = {parameter.name for parameter in parameters}
    left = [key for key in offered if key not in names]
    given: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in offered:
            value = offered[parameter.name]
        elif parameter.default is not parameter.empty:
            value = parameter.default
        elif left and parameter.kind is not parameter.KEYWORD_ONLY:
            value = offered[left.pop(0)]
        else:
            raise ValueError(
                f"agent={name!r}: nothing is known for its parameter {parameter.name!r}; give it a "
                f"default, or take only {', '.join(offered)}"
            )
        if parameter.kind is parameter.POSITIONAL_ONLY:
            given.append(value)
        else:
            named[parameter.name] = value
    return given, named
