"""The baselines, and that every registered agent spends what it may and finds what counts."""

import numpy as np
import pytest

from pruning_agents import agent_names, get_agent, random_search, register_agent, uniform
from pruning_agents.baselines import (
    beam_search,
    cem,
    global_ranking,
    hill_climbing,
    random_policy,
    random_policy_accuracies,
    sensitivity_greedy,
)
from pruning_agents.search.budgeted_search import BudgetedSearch
from pruning_agents.search.registry import AgentEntry
from pruning_agents.search.rollout import finish
from pruning_agents.stock.sb3_agents import stock_agents
from tests.helpers.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain

# Their policies may settle on prunings that were seen before; test_training.py has their own.
STOCK = {agent.name for agent in stock_agents()}

# The others need an environment that reports costs; tests/agents/search/test_training.py has one.
WITHOUT_COSTS = [n for n in agent_names() if n != "ppo-lagrangian"]

#: Of these, the ones that take half a minute to give up where everything is known.
LONG_WITHOUT_NEWS = ("rl-pruner-groupwise", "sac", "ddpg", "td3", "tqc")


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


def test_candidates_judged_together_are_those_that_are_judged_one_by_one(graph):
    actions = np.random.default_rng(0).uniform(-1, 1, (12, 4))
    with BudgetedSearch("together", KnownOptimumEnv(graph), 12) as together:
        ends = together.finish(actions)
    alone = KnownOptimumEnv(graph)
    for action, end in zip(actions, ends, strict=True):
        assert finish(alone.dynamics, alone.dynamics.initial(), action) == end
    assert together.spent == alone.evaluator.evaluations


def test_candidates_beyond_the_limit_are_not_judged(graph):
    with BudgetedSearch("few", KnownOptimumEnv(graph), 3) as search:
        ends = search.finish(np.random.default_rng(0).uniform(-1, 1, (12, 4)))
    assert len(ends) == search.spent == 3 and search.left == 0


def test_an_improvement_is_dated_by_the_evaluation_that_found_it(graph):
    env = KnownOptimumEnv(graph)
    worse, better = np.eye(4)[[0, FREE_GROUP]] * 2 - 1
    with BudgetedSearch("dated", env, 10) as search:
        search.finish([worse, worse, better])
    assert [spent for spent, _ in found(search.result).history] == [1, 2]


def test_the_random_policy_keeps_the_best_of_its_episodes(graph):
    accuracies = random_policy_accuracies(KnownOptimumEnv(graph), 30, seed=2)
    result = found(random_policy(KnownOptimumEnv(graph), 30, seed=2))
    assert accuracies.shape == (30,)
    assert accuracies.min() < accuracies.max()
    assert result.accuracy >= accuracies.max()


def test_the_random_policy_prunes_more_evenly_than_random_distributions(graph):
    env = KnownOptimumEnv(graph, limit=0.3)
    policy = random_policy_accuracies(env, 60)
    rng = np.random.default_rng(0)
    with BudgetedSearch("search", KnownOptimumEnv(graph, limit=0.3), 60) as search:
        kept = search.finish(rng.uniform(-1, 1, (60, 4)))
    assert policy.std() < np.std([end.state.metrics.accuracy for end in kept if end.state.metrics])


def test_a_global_ranking_takes_the_channels_with_the_lowest_scores(graph):
    env = KnownOptimumEnv(graph)
    # Scores rise with the index of the channel, so the first groups hold the lowest.
    result = found(global_ranking(env, "any", normalised=False))
    counts = result.state.counts
    assert counts[0] <= 2 and counts[-1] >= 11
    assert env.evaluator.evaluations == 1


def test_normalised_scores_rank_channels_against_their_own_group(graph):
    even = found(global_ranking(KnownOptimumEnv(graph), "any", normalised=True))
    raw = found(global_ranking(KnownOptimumEnv(graph), "any", normalised=False))
    assert np.ptp(even.state.counts) < np.ptp(raw.state.counts)


def test_sensitivity_greedy_finds_the_group_that_costs_nothing(graph):
    env = KnownOptimumEnv(graph)
    result = found(sensitivity_greedy(env, 5))
    assert result.evaluations == env.evaluator.evaluations == 5
    assert result.state.counts.argmin() == FREE_GROUP
    assert result.accuracy > found(uniform(KnownOptimumEnv(graph))).accuracy


@pytest.mark.parametrize("evaluations", [1, 4, 5, 13, 100])
def test_sensitivity_greedy_spends_at_most_what_it_may(graph, evaluations):
    env = KnownOptimumEnv(graph)
    sensitivity_greedy(env, evaluations)
    assert 1 <= env.evaluator.evaluations <= evaluations


@pytest.mark.parametrize("evaluations", [1, 3, 8, 20, 60])
def test_beam_search_spends_at_most_what_it_may_and_always_finds_something(graph, evaluations):
    env = KnownOptimumEnv(graph, limit=0.5)
    found(beam_search(env, evaluations))
    assert 1 <= env.evaluator.evaluations <= evaluations


def test_beam_search_prunes_the_group_that_costs_nothing(graph):
    result = found(beam_search(KnownOptimumEnv(graph), 30))
    assert result.state.counts.argmin() == FREE_GROUP


@pytest.mark.parametrize("search", [cem, hill_climbing])
def test_a_search_that_learns_beats_random_search(graph, search):
    guided, blind = (
        np.mean([found(f(KnownOptimumEnv(graph, limit=0.3), 80, s)).accuracy for s in range(5)])
        for f in (search, random_search)
    )
    assert guided > blind


@pytest.mark.parametrize(
    ("search", "argument", "value"),
    [
        (cem, "population", 1),
        (cem, "elite_fraction", 0.0),
        (cem, "smoothing", 1.5),
        (cem, "initial_std", 0.0),
        (cem, "minimum_std", -1.0),
        (hill_climbing, "initial_std", 0.0),
        (hill_climbing, "minimum_std", -1.0),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(graph, search, argument, value):
    with pytest.raises(ValueError, match=f"{argument}={value}"):
        search(KnownOptimumEnv(graph), 10, **{argument: value})


def test_an_order_needs_a_distribution_action(graph):
    env = KnownOptimumEnv(graph)
    env.dynamics.action = object()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="env must be made with action='distribution'"):
        global_ranking(env, "any", normalised=True)


@pytest.mark.parametrize("name", [n for n in agent_names() if n not in STOCK])
def test_every_agent_spends_no_more_than_it_may_and_no_less_if_it_can(graph, name):
    env = KnownOptimumEnv(graph, limit=0.4)
    result = found(get_agent(name).search(env, 120, 0, False).result)
    assert result.evaluations == env.evaluator.evaluations <= 120
    # The published noise hardly moves the counts of four groups, and nothing begins it anew.
    if get_agent(name).seeded and name != "rl-pruner-published":
        assert result.evaluations == 120


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in LONG_WITHOUT_NEWS else name
        for name in WITHOUT_COSTS
    ],
)
def test_every_agent_ends_where_there_is_hardly_anything_to_evaluate(graph, name):
    env = KnownOptimumEnv(graph, limit=0.999)
    assert found(get_agent(name).search(env, 150, 0, False).result).evaluations < 150


@pytest.mark.parametrize("name", WITHOUT_COSTS)
def test_every_agent_returns_a_judged_feasible_state_and_how_it_got_there(graph, name, capfd):
    env = KnownOptimumEnv(graph)
    result = found(get_agent(name).search(env, 60, 3, False).result)
    assert result.agent == name
    assert env.dynamics.feasible(result.state)
    assert env.evaluator.evaluate(result.state.keep) == result.state.metrics
    spent, accuracies = zip(*result.history, strict=True)
    assert list(spent) == sorted(spent) and list(accuracies) == sorted(accuracies)
    assert accuracies[-1] == result.accuracy
    # The same again with its seed, and with its progress shown, which is not printed as output.
    assert get_agent(name).search(KnownOptimumEnv(graph), 60, 3, True).result == result
    assert capfd.readouterr().out == ""


def test_an_unknown_agent_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"agent='nobody'.*uniform, .*random-search, .*rl-pruner"):
        get_agent("nobody")


def test_a_name_can_be_registered_once():
    with pytest.raises(ValueError, match="'uniform' is registered already"):
        register_agent(AgentEntry("uniform", "again", get_agent("uniform").search))


def test_a_result_prints_as_one_readable_line(graph):
    shown = str(uniform(KnownOptimumEnv(graph)))
    assert shown.startswith("uniform: search-val accuracy ")
    assert "found in 1 evaluations" in shown and "\n" not in shown and len(shown) < 200
