"""`rank_every`: which channels go is asked of the network as it is, and not of the dense one."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv
from pruning_env.evaluation.importance.scores import importance_scores
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.filters import filters_at
from pruning_env.process.probe import probe_masks
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tabular.vector_env import CNNPruneTabularVectorEnv
from tests.helpers.small import small_dynamics, small_evaluator

STILL = np.zeros(3)
SMALL: dict[str, Any] = {
    "channels_per_step": 0.15,
    "val_images": 50,
    "importance_images": 64,
    "budget": {"params": 0.4},
}


def ranking(every: int | None = 1, importance: str = "taylor", **options: Any) -> PruningDynamics:
    return small_dynamics(
        small_evaluator(),
        {"params": 0.2},
        channels_per_step=0.1,
        rank_every=every,
        importance=importance,
        **options,
    )


def walk(dynamics, steps):
    states = [dynamics.initial()]
    for _ in range(steps):
        states.append(dynamics.transition(states[-1], STILL).state)
    return states


@pytest.mark.parametrize("importance", ["taylor", "taylor_weights", "l1", "bn_scale"])
def test_the_least_important_channels_of_the_network_as_it_is_go(importance):
    dynamics = ranking(importance=importance)
    graph, evaluator = dynamics.graph, dynamics.evaluator
    before = walk(dynamics, 2)[-1]
    after = dynamics.apply(before, STILL)
    # A graph of the pruned network's own, which knows nothing of the dense one.
    pruned = evaluator.pruned_model(before.keep)
    images, labels = evaluator._evidence
    own = ChannelGraph.trace(pruned, images[:1])
    scores = np.full(graph.num_channels, -1.0)  # no importance is below 0
    scores[before.keep] = importance_scores(importance, own, pruned, images=images, labels=labels)
    assert np.array_equal(after.keep, graph.keep_top(graph.rank(scores), after.counts))
    assert (after.keep <= before.keep).all()


def test_it_changes_which_channels_go_and_not_how_many():
    fixed, anew = walk(ranking(None), 5)[-1], walk(ranking(), 5)[-1]
    assert np.array_equal(fixed.counts, anew.counts)
    assert not np.array_equal(fixed.keep, anew.keep)


def test_between_two_rankings_the_last_one_is_carried_on(monkeypatch):
    dynamics = ranking(3)
    asked = []
    scores_of = dynamics.evaluator.scores_of

    def noting(kind, keep, weights=None):
        asked.append(keep)
        return scores_of(kind, keep, weights)

    monkeypatch.setattr(dynamics.evaluator, "scores_of", noting)
    states = walk(dynamics, 6)
    assert [state.ranking is None for state in states] == [True] * 4 + [False, False, True]
    assert len(asked) == 1 and np.array_equal(asked[0], states[3].keep)
    assert np.array_equal(states[4].ranking, states[5].ranking)
    first = small_dynamics(small_evaluator(), {"params": 0.2}, channels_per_step=0.1)
    assert np.array_equal(states[3].keep, walk(first, 3)[-1].keep)  # until then the dense network's
    for state in states:
        assert dynamics.check(pickle.loads(pickle.dumps(state))) == state


def test_trained_weights_are_what_is_ranked():
    dynamics = small_dynamics(
        small_evaluator(recovery="finetune"),
        {"params": 0.2},
        channels_per_step=0.15,
        rank_every=1,
        importance="l1",
    )
    state = dynamics.transition(dynamics.initial(), STILL).state
    assert state.weights is not None
    with_weights = dynamics.evaluator.scores_of("l1", state.keep, state.weights)
    assert not np.allclose(with_weights[state.keep], dynamics.scores[state.keep])
    rank = dynamics.graph.rank(np.where(state.keep, with_weights, -1.0))
    after = dynamics.apply(state, STILL)
    assert np.array_equal(after.keep, dynamics.graph.keep_top(rank, after.counts))


def test_ranking_costs_no_evaluation_and_a_ruined_network_does_not_stop_it(monkeypatch):
    dynamics = ranking()
    state = walk(dynamics, 1)[-1]
    before = dynamics.evaluator.evaluations
    dynamics.apply(state, STILL)
    assert dynamics.evaluator.evaluations == before
    ruined = ranking(importance="taylor_weights")
    state = walk(ruined, 1)[-1]
    ruined.evaluator._evidence[0].fill_(torch.inf)
    assert (ruined.evaluator.scores_of("taylor_weights", state.keep) == 0).all()
    assert ruined.apply(state, STILL).removed > 0


def test_strange_states_are_refused():
    dynamics = ranking(2)
    state = walk(dynamics, 3)[-1]
    assert state.ranking is not None
    for wrong, reason in (
        ({"ranking": state.ranking[:-1]}, r"state\.ranking of shape"),
        ({"ranking": np.full_like(state.ranking, np.nan)}, r"state\.ranking of shape"),
        ({"keep": dynamics.graph.full()}, r"state\.keep"),
    ):
        with pytest.raises(ValueError, match=reason):
            dynamics.check(dataclasses.replace(state, **wrong))
    fixed = small_dynamics(small_evaluator(), {"params": 0.2}, channels_per_step=0.1)
    with pytest.raises(ValueError, match=r"state\.keep"):
        fixed.check(walk(ranking(), 5)[-1])


@pytest.mark.parametrize("make", [CNNPruneTabularEnv, CNNPruneTabularVectorEnv])
def test_the_solved_tier_keeps_its_ranking_and_says_so(make):
    with pytest.raises(
        ValueError, match=r"rank_every=1 is not allowed.*by the ranking of the dense"
    ):
        make(rank_every=1)


def test_the_vector_environment_ranks_as_the_single_one_does():
    arguments = {**SMALL, "rank_every": 1, "sensitivity": "probe", "sensitivity_every": 2}
    env, vector = CNNPruneEnv(**arguments), CNNPruneVectorEnv(num_envs=2, **arguments)
    vector.reset(seed=0)
    actions = np.linspace(-1, 1, 12).reshape(2, 6).astype(np.float32)
    for _ in range(2):
        observations = vector.step(actions)[0]
    for slot, action in enumerate(actions):
        env.reset(seed=0)
        for _ in range(2):
            observation = env.step(action)[0]
        assert vector.state(slot) == env.state()
        assert data_equivalence(observation, observations[slot])


# By trial


def test_a_probe_is_the_accuracy_that_a_tenth_of_the_group_takes_with_it():
    dynamics = ranking(sensitivity="probe", sensitivity_every=1)
    state = walk(dynamics, 2)[-1]
    evaluator, graph = dynamics.evaluator, dynamics.graph
    images, labels = evaluator._evidence

    def accuracy(keep):
        with torch.inference_mode():
            right = evaluator.pruned_model(keep)(images).argmax(1) == labels
        return right.float().mean().item()

    rank = graph.rank(np.where(state.keep, evaluator.scores_of("taylor", state.keep), -1.0))
    expected = []
    for group in range(3):
        counts = state.counts.copy()
        counts[group] -= max(1, round(0.1 * counts[group]))
        expected.append(max(0.0, accuracy(state.keep) - accuracy(graph.keep_top(rank, counts))))
    assert state.sensitivity == pytest.approx(expected)
    before = evaluator.evaluations
    dynamics.sensitivity.of(state)
    assert evaluator.evaluations == before


def test_probes_are_observed_and_by_default_those_of_the_dense_network():
    env = CNNPruneEnv(**SMALL, sensitivity="probe")
    observation, _ = env.reset(seed=0)
    where = [name.endswith("/sensitivity") for name in env.observation_names]
    assert observation[where] == pytest.approx(env.dynamics.sensitivity.of_dense)
    assert env.observation_space.contains(observation)
    after = env.step(np.zeros(6, np.float32))[0]
    assert np.array_equal(after[where], observation[where])


def test_a_group_at_its_floor_is_not_probed_below_it():
    dynamics = ranking()
    graph, floors = dynamics.graph, dynamics.units.floors
    masks = probe_masks(graph, dynamics.rank, floors, floors)
    assert (graph.counts(masks) == floors).all()


# Steps in filters


def test_a_step_removes_a_share_of_the_filters_as_nearly_as_channels_can():
    evaluator = small_evaluator()
    dynamics = small_dynamics(evaluator, {"params": 0.2}, filters_per_step=0.2)
    graph = dynamics.graph
    whole = filters_at(graph, graph.sizes)
    # The stem shares its channels with a layer, so that one of them is two filters.
    assert whole > graph.num_channels
    for action in ([0.0, 0.0, 0.0], [1.0, -1.0, -1.0], [-1.0, 1.0, 0.0]):
        after = dynamics.apply(dynamics.initial(), np.array(action))
        removed = whole - filters_at(graph, after.counts)
        assert abs(removed - 0.2 * whole) <= 1
        assert after.requested == after.removed
    alone = dynamics.apply(dynamics.initial(), np.array([1.0, -1.0, -1.0]))
    assert alone.removed < dynamics.apply(dynamics.initial(), np.array([-1.0, 1.0, 0.0])).removed


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"rank_every": 0}, "rank_every=0"),
        ({"sensitivity": "touch"}, "sensitivity='touch'"),
        ({"filters_per_step": 0.0}, r"filters_per_step=0\.0"),
        ({"filters_per_step": 0.1, "action": "ratio", "max_steps": 2}, "filters_per_step is not"),
        (
            {"filters_per_step": 0.1, "constraint": "wall", "max_steps": 2},
            "filters_per_step is not",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, reason):
    with pytest.raises(ValueError, match=reason):
        CNNPruneEnv(**arguments)
