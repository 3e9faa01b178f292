"""Searches that begin with what the rules of thumb propose."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from pruning_agents import RLPruner, cem, hill_climbing
from pruning_agents.baselines import best_of_rules
from pruning_agents.proposals.rules import rule_actions
from pruning_agents.proposals.start import WARM_STARTS, start_actions
from pruning_env.process.allocation import distribution
from tests.helpers.known_optimum import KnownOptimumEnv, trace_chain


@pytest.fixture(scope="module")
def graph() -> Any:
    return trace_chain()


class Watched(KnownOptimumEnv):
    """Remembers which networks were judged, in their order."""

    def __init__(self, graph: Any, **arguments: Any) -> None:
        super().__init__(graph, **arguments)
        self.judged: list[tuple[int, ...]] = []
        evaluate = self.evaluator.evaluate_many

        def watched(keeps: Any) -> Any:
            self.judged += [tuple(graph.counts(keep).tolist()) for keep in keeps]
            return evaluate(keeps)

        self.evaluator.evaluate_many = watched  # type: ignore[method-assign]


def rl_pruner(policy: str, env: Any, evaluations: int, seed: int = 0, **arguments: Any) -> Any:
    return RLPruner(policy, env, seed=seed, **arguments).learn(evaluations).incumbent


SEARCHES: dict[str, Any] = {
    "cem": cem,
    "hill-climbing": hill_climbing,
    "rl-pruner": partial(rl_pruner, "DistributionPolicy"),
    "rl-pruner-groupwise": partial(rl_pruner, "GroupwisePolicy"),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_the_first_evaluations_are_those_of_the_rules(graph: Any, search: str) -> None:
    rules, env = Watched(graph), Watched(graph)
    actions = start_actions(env.dynamics, "rules")
    best_of_rules(rules, 100)
    found = SEARCHES[search](env, 30, 0, warm_start="rules")
    assert env.judged[: len(actions)] == rules.judged[: len(actions)]
    assert found.accuracy >= max(best_value(graph, action) for action in actions)


@pytest.mark.parametrize("search", SEARCHES)
def test_uniform_pruning_comes_first_or_not_at_all(graph: Any, search: str) -> None:
    uniform = Watched(graph)
    start = uniform.dynamics.initial()
    while not (step := uniform.dynamics.transition(start, np.zeros(4))).terminated:
        start = step.state
    wanted = uniform.judged[-1]
    env = Watched(graph)
    SEARCHES[search](env, 5, 1, warm_start="uniform")
    assert env.judged[0] == wanted
    if search != "hill-climbing":  # which has always begun there
        env = Watched(graph)
        SEARCHES[search](env, 5, 1, warm_start="none")
        assert wanted != env.judged[0]


@pytest.mark.parametrize("policy", ["DistributionPolicy", "GroupwisePolicy"])
def test_rl_pruner_searches_on_around_the_best_rule(graph: Any, policy: str) -> None:
    env = KnownOptimumEnv(graph)
    best = max(
        rule_actions(env.dynamics, probes=False).values(),
        key=lambda action: best_value(graph, action),
    )
    # With as many evaluations as rules, and one to commit, nothing has moved on yet.
    agent = RLPruner(policy, env, seed=0, warm_start="rules", restart=False)
    agent.learn(len(rule_actions(env.dynamics, probes=False)) + 1)
    expected = distribution(best, graph.sizes, 3.0)
    np.testing.assert_allclose(agent.distribution, expected, atol=0.05)


def best_value(graph: Any, action: Any) -> float:
    env = KnownOptimumEnv(graph)
    state = env.dynamics.initial()
    while not (step := env.dynamics.transition(state, action)).terminated:
        state = step.state
    return step.state.latest.accuracy


def test_an_agent_that_goes_on_does_not_begin_anew(graph: Any) -> None:
    env = Watched(graph)
    agent = RLPruner("DistributionPolicy", env, seed=0, warm_start="rules")
    agent.learn(40)
    before = len(env.judged)
    first = env.judged[0]
    agent.learn(10)
    assert first not in env.judged[before:]


def test_the_published_agent_begins_as_published() -> None:
    assert RLPruner.published()["warm_start"] == "none"


@pytest.mark.parametrize("search", SEARCHES)
def test_an_unknown_start_is_refused(graph: Any, search: str) -> None:
    allowed = ", ".join(sorted(WARM_STARTS))
    with pytest.raises(ValueError, match=f"warm_start='best' is unknown; allowed: {allowed}"):
        SEARCHES[search](KnownOptimumEnv(graph), 5, 0, warm_start="best")
