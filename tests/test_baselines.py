"""The baselines, and that every registered agent spends what it may and finds what counts."""

import numpy as np
import pytest

from agents import agent_names, get_agent, random_search, register_agent, uniform
from agents.registry import AgentEntry
from agents.rollout import finish
from tests.known_optimum import KnownOptimumEnv, trace_chain


@pytest.fixture(scope="module")
def graph():
    return trace_chain()


def found(result):
    """The result, of which there must be one."""
    assert result is not None
    return result


def test_uniform_takes_the_same_share_of_every_group_for_one_evaluation(graph):
    env = KnownOptimumEnv(graph)
    result = found(uniform(env))
    assert result.evaluations == env.evaluator.evaluations == 1
    assert np.ptp(result.state.counts) <= 1
    assert env.dynamics.feasible(result.state)
    assert result.history == ((1, result.accuracy),)


def test_uniform_finds_nothing_when_the_budget_cannot_be_met(graph):
    assert uniform(KnownOptimumEnv(graph, limit=0.001)) is None


def test_random_search_returns_the_best_of_its_candidates(graph):
    result = found(random_search(KnownOptimumEnv(graph), 40, seed=1))
    twin, rng = KnownOptimumEnv(graph), np.random.default_rng(1)
    best = -np.inf
    while twin.evaluator.evaluations < 40:
        end = finish(twin.dynamics, twin.dynamics.initial(), rng.uniform(-1, 1, 4)).state
        best = max(best, twin.evaluator.evaluate(end.keep).accuracy)
    assert result.evaluations == 40
    assert result.accuracy == best


def test_random_search_repeats_with_its_seed_and_changes_with_another(graph):
    first, again, other = (
        found(random_search(KnownOptimumEnv(graph), 30, seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.state != other.state


def test_random_search_finds_nothing_when_the_budget_cannot_be_met(graph):
    assert random_search(KnownOptimumEnv(graph, limit=0.001), 5) is None


def test_random_search_refuses_to_spend_nothing(graph):
    with pytest.raises(ValueError, match="evaluations=0"):
        random_search(KnownOptimumEnv(graph), 0)


@pytest.mark.parametrize("name", agent_names())
def test_every_agent_spends_no_more_than_it_may_and_no_less_if_it_can(graph, name):
    env = KnownOptimumEnv(graph, limit=0.4)
    result = found(get_agent(name).search(env, 120, 0, False).result)
    assert result.evaluations == env.evaluator.evaluations <= 120
    if get_agent(name).seeded:
        assert result.evaluations == 120


@pytest.mark.parametrize("name", agent_names())
def test_every_agent_ends_where_there_is_hardly_anything_to_evaluate(graph, name):
    env = KnownOptimumEnv(graph, limit=0.999)
    assert found(get_agent(name).search(env, 400, 0, False).result).evaluations < 400


@pytest.mark.parametrize("name", agent_names())
def test_every_agent_returns_a_judged_feasible_state_and_how_it_got_there(graph, name):
    env = KnownOptimumEnv(graph)
    result = found(get_agent(name).search(env, 60, 0, False).result)
    assert result.agent == name
    assert env.dynamics.feasible(result.state)
    assert env.evaluator.evaluate(result.state.keep) == result.state.metrics
    spent, accuracies = zip(*result.history, strict=True)
    assert list(spent) == sorted(spent) and list(accuracies) == sorted(accuracies)
    assert accuracies[-1] == result.accuracy


@pytest.mark.parametrize("name", agent_names())
def test_every_agent_repeats_with_its_seed(graph, name):
    first, again = (
        get_agent(name).search(KnownOptimumEnv(graph), 60, 3, False).result for _ in range(2)
    )
    assert first == again


@pytest.mark.parametrize("name", agent_names())
def test_every_agent_can_show_its_progress(graph, name, capfd):
    get_agent(name).search(KnownOptimumEnv(graph), 20, 0, True)
    assert capfd.readouterr().out == ""


def test_an_unknown_agent_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"agent='nobody'.*uniform, random-search, rl-pruner"):
        get_agent("nobody")


def test_a_name_can_be_registered_once():
    with pytest.raises(ValueError, match="'uniform' is registered already"):
        register_agent(AgentEntry("uniform", "again", get_agent("uniform").search))


def test_a_result_prints_as_one_readable_line(graph):
    shown = str(uniform(KnownOptimumEnv(graph)))
    assert shown.startswith("uniform: search-val accuracy ")
    assert "found in 1 evaluations" in shown and "\n" not in shown and len(shown) < 200
