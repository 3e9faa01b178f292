"""`sensitivity_every`: what an agent sees of the network as it is now, and not of the dense one."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import data_equivalence
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.envs.cnn_prune_vector import CNNPruneVectorEnv
from pruning_env.envs.sb3 import CNNPruneVecEnv
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.evaluation.importance.scores import group_sensitivity, importance_scores
from pruning_env.evaluation.recovery.finetuning import FineTuning
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.process.observations import FlatObservation
from pruning_env.process.rewards import get_reward
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.models import CifarResNet
from tests.helpers.small import small_dynamics, small_evaluator, small_splits

SHORT: dict[str, Any] = {"channels_per_step": 0.1, "val_images": 50, "budget": {"params": 0.2}}
STILL = np.zeros(3)


def walk(dynamics: PruningDynamics, steps: int, action: np.ndarray = STILL) -> list[Any]:
    states = [dynamics.initial()]
    for _ in range(steps):
        states.append(dynamics.transition(states[-1], action).state)
    return states


def seen(dynamics, state):
    """(L,) the sensitivities in an observation."""
    flat = FlatObservation(
        dynamics.graph, dynamics.budgets, lambda: dynamics.scores, dynamics.units.floors
    )
    wanted = [name.endswith("/sensitivity") for name in flat.names]
    return flat.observe(state)[wanted]


def taylor_pass(evaluator, keep, weights=None):
    """(C,) from a graph of the pruned network's own, which knows nothing of the dense one."""
    pruned = evaluator.pruned_model(keep, weights)
    images, labels = evaluator._calibration
    graph = ChannelGraph.trace(pruned, images[:1])
    scores = np.zeros(len(keep))
    scores[keep] = importance_scores("taylor", graph, pruned, images=images, labels=labels)
    return scores


class Depthwise(nn.Module):
    """A depthwise, a grouped and a pointwise layer, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8))
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=2)
        self.head = nn.Linear(20, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(torch.relu(self.stem(x))).relu()
        return self.head(torch.cat([x, self.grouped(x).relu()], 1).mean((2, 3)))


def depthwise_evaluator(**options: Any) -> Evaluator:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Depthwise().eval()
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8))
    return Evaluator(model, graph, small_splits(), **options)


# The values


@pytest.mark.parametrize("recovery", ["none", "bn"])
@pytest.mark.parametrize("make", [small_evaluator, depthwise_evaluator])
def test_it_is_a_taylor_pass_over_the_really_pruned_network(make, recovery):
    evaluator = make(recovery=recovery)
    keep = evaluator.graph.random_keep(0.6, np.random.default_rng(1))
    scores = evaluator.sensitivity(keep)
    assert not scores[~keep].any() and scores[keep].all()
    assert scores == pytest.approx(taylor_pass(evaluator, keep), rel=1e-5, abs=1e-12)
    dense = np.where(keep, evaluator.scores("taylor"), 0.0)
    assert not np.allclose(scores, dense, rtol=0.05)


def test_of_the_dense_network_it_is_the_taylor_importance_bit_for_bit():
    evaluator = small_evaluator()
    full = evaluator.graph.full()
    assert np.array_equal(evaluator.sensitivity(full), evaluator.scores("taylor"))


def test_with_trained_weights_it_is_that_of_the_trained_network():
    evaluator = small_evaluator(recovery="finetune", finetuning=FineTuning(3, 0.01))
    dynamics = small_dynamics(evaluator, channels_per_step=0.2, sensitivity_every=1)
    state = walk(dynamics, 1)[-1]
    expected = taylor_pass(evaluator, state.keep, state.weights)
    assert state.sensitivity == pytest.approx(expected, rel=1e-5, abs=1e-12)
    assert not np.allclose(state.sensitivity, evaluator.sensitivity(state.keep), rtol=0.01)


def test_a_ruined_network_has_equal_shares_and_the_episode_goes_on():
    splits = small_splits()
    huge = Split(splits.search_train.images * 1e38, splits.search_train.labels)
    splits = dataclasses.replace(splits, search_train=huge)
    evaluator = depthwise_evaluator(recovery="none")
    ruined = Evaluator(evaluator._model, evaluator.graph, splits, recovery="none")
    keep = evaluator.graph.random_keep(0.6, np.random.default_rng(1))
    scores = ruined.sensitivity(keep)
    assert not scores.any()
    shares = group_sensitivity(evaluator.graph, scores, keep)
    assert np.array_equal(shares, np.full(len(shares), 1 / len(shares)))


def test_a_bad_mask_is_refused():
    evaluator = small_evaluator()
    with pytest.raises(ValueError, match="keep has dtype"):
        evaluator.sensitivity(np.ones(3, dtype=bool))


# When it is measured


@pytest.mark.parametrize("every", [1, 2, 3])
def test_it_is_that_of_the_last_step_that_n_divides(every):
    evaluator = small_evaluator()
    dynamics = small_dynamics(
        evaluator, {"params": 1e-3}, channels_per_step=0.1, sensitivity_every=every
    )
    states = walk(dynamics, 6)
    for state in states:
        source = states[state.step // every * every]
        scores = evaluator.sensitivity(source.keep)
        assert np.array_equal(state.sensitivity, scores)
        expected = group_sensitivity(dynamics.graph, scores, state.keep)
        assert seen(dynamics, state) == pytest.approx(expected, abs=1e-6)


def test_the_default_carries_nothing_and_is_seen_as_the_dense_network():
    evaluator = small_evaluator()
    dynamics = small_dynamics(evaluator, channels_per_step=0.1)
    for state in walk(dynamics, 4):
        assert state.sensitivity is None
        expected = group_sensitivity(dynamics.graph, dynamics.scores, state.keep)
        assert np.array_equal(seen(dynamics, state), expected.astype(np.float32))


def test_the_ranking_and_everything_else_stay_as_without_it():
    plain, refreshed = (
        small_dynamics(small_evaluator(), channels_per_step=0.1, sensitivity_every=every)
        for every in (None, 2)
    )
    assert np.array_equal(plain.rank, refreshed.rank)
    states = zip(walk(plain, 5), walk(refreshed, 5), strict=True)
    assert all(dataclasses.replace(b, sensitivity=None) == a for a, b in states)


def test_by_another_importance_it_is_the_taylor_one_from_the_start():
    evaluator = small_evaluator()
    dynamics = small_dynamics(evaluator, importance="l1", sensitivity_every=2)
    assert np.array_equal(walk(dynamics, 0)[0].sensitivity, evaluator.scores("taylor"))
    assert not np.array_equal(dynamics.scores, evaluator.scores("taylor"))


def test_a_lazy_reward_measures_it_too_and_judges_no_earlier():
    evaluator = small_evaluator()
    dynamics = small_dynamics(
        evaluator, channels_per_step=0.1, sensitivity_every=1, reward=get_reward("final")
    )
    state = walk(dynamics, 3)[-1]
    assert state.metrics is None and evaluator.evaluations == 0
    assert np.array_equal(state.sensitivity, evaluator.sensitivity(state.keep))


# What it costs


def test_it_is_no_evaluation_and_is_made_once_per_network(monkeypatch):
    evaluator, plain = small_evaluator(), small_evaluator()
    dynamics = small_dynamics(evaluator, channels_per_step=0.1, sensitivity_every=2)
    passes = []
    original = evaluator.execution.sliced.candidate

    def noted(keep):
        passes.append(keep)
        return original(keep)

    monkeypatch.setattr(evaluator.execution.sliced, "candidate", noted)
    monkeypatch.setattr(
        evaluator.execution, "measure_masks", plain.execution.measure_masks
    )  # candidates of evaluations aside
    states = walk(dynamics, 4)
    assert evaluator.evaluations == 4 and len(passes) == 2
    dynamics.transition(states[1], STILL)
    assert evaluator.evaluations == 4 and len(passes) == 2
    walk(small_dynamics(plain, channels_per_step=0.1), 4)
    assert plain.evaluations == 4


def test_it_costs_at_most_three_forward_passes_of_the_pruned_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CifarResNet(20, widths=(4, 8, 16)).eval()
        images = Split(torch.randn(128, 3, 16, 16), torch.randint(0, 10, (128,)))
    graph = ChannelGraph.trace(model, torch.zeros(1, 3, 16, 16))
    evaluator = Evaluator(model, graph, Splits(images, images, images, (0.0,) * 3, (1.0,) * 3, 10))
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned = evaluator.pruned_model(keep)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        pruned(evaluator._calibration[0])
    with FlopCounterMode(display=False) as refresh:
        evaluator.sensitivity(keep)
    assert 1.5 < refresh.get_total_flops() / forward.get_total_flops() <= 3
    with FlopCounterMode(display=False) as again:
        evaluator.sensitivity(keep)
    assert again.get_total_flops() == 0


def test_what_is_remembered_is_bounded():
    evaluator = small_evaluator(cache_size=2)
    rng = np.random.default_rng(0)
    for _ in range(4):
        evaluator.sensitivity(evaluator.graph.random_keep(0.5, rng))
    assert len(evaluator._sensitivities) == 2


# States


def test_a_state_with_it_is_locked_equal_hashable_and_pickles():
    state = walk(small_dynamics(sensitivity_every=1), 1)[-1]
    for clone in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert clone == state and hash(clone) == hash(state)
        assert not clone.sensitivity.flags.writeable
    assert dataclasses.replace(state, sensitivity=state.sensitivity * 2) != state


def test_a_state_without_it_gets_it_and_one_that_has_another_is_refused():
    evaluator = small_evaluator()
    plain = small_dynamics(evaluator, channels_per_step=0.1)
    refreshed = small_dynamics(evaluator, channels_per_step=0.1, sensitivity_every=2)
    bare: Any = walk(plain, 3)[-1]
    full: Any = walk(refreshed, 3)[-1]
    scores = full.sensitivity
    checked: Any = refreshed.check(bare)
    assert np.array_equal(checked.sensitivity, evaluator.sensitivity(bare.keep))
    assert refreshed.check(full) is full
    with pytest.raises(ValueError, match="sensitivity_every=None measures none"):
        plain.check(full)
    for wrong in (scores[:3], -scores, scores * np.nan):
        with pytest.raises(ValueError, match="finite numbers of at least 0"):
            refreshed.check(dataclasses.replace(full, sensitivity=wrong))


# The environments


@pytest.fixture(scope="module")
def env():
    env = CNNPruneEnv(**SHORT, sensitivity_every=2)
    env.reset(seed=0)
    return env


@pytest.fixture(scope="module")
def actions(env):
    rng = np.random.default_rng(0)
    return [rng.uniform(-1, 1, env.action_space.shape).astype(np.float32) for _ in range(5)]


def test_a_restored_forked_or_copied_episode_sees_the_same(env, actions):
    env.reset()
    steps = [env.step(action) for action in actions[:1]]  # between two measurements
    state = env.state()
    twins = [env.fork(), pickle.loads(pickle.dumps(env)), CNNPruneEnv(**SHORT, sensitivity_every=2)]
    twins[2].restore(state)
    foreseen = env.transition(state, actions[1])
    steps = [env.step(action) for action in actions[1:]]
    assert foreseen.state.sensitivity is not None and foreseen.state != state
    for twin in twins:
        assert data_equivalence([twin.step(action) for action in actions[1:]], steps, exact=True)
    env.restore(foreseen.state)
    again = [env.step(action) for action in actions[2:]]
    assert data_equivalence(again, steps[1:], exact=True)


def test_observations_differ_from_the_dense_ones_in_the_sensitivities_only(env, actions):
    plain = CNNPruneEnv(**SHORT)
    wanted = np.array([name.endswith("/sensitivity") for name in env.observation_names])
    pairs = [(plain.reset()[0], env.reset()[0])]
    pairs += [(plain.step(action)[0], env.step(action)[0]) for action in actions[:3]]
    for step, (dense, now) in enumerate(pairs):
        assert np.array_equal(dense[~wanted], now[~wanted])
        assert np.array_equal(dense[wanted], now[wanted]) == (step < 2)
        assert env.observation_space.contains(now)


def test_many_slots_and_stable_baselines_see_what_one_environment_sees(env, actions):
    vector = CNNPruneVectorEnv(2, **SHORT, sensitivity_every=2)
    faced = CNNPruneVecEnv(CNNPruneVectorEnv(2, **SHORT, sensitivity_every=2))
    starts = [env.reset()[0], *vector.reset()[0], *faced.reset()]
    assert all(np.array_equal(start, starts[0]) for start in starts)
    for first, second in zip(actions, reversed(actions), strict=True):
        rows = vector.step(np.stack([first, second]))[0]
        faced.step_async(np.stack([first, second]))
        assert np.array_equal(rows, faced.step_wait()[0])
        observation, _, terminated, _, _ = env.step(first)
        if terminated:
            break
        assert np.array_equal(rows[0], observation)
        assert vector.state(0) == env.state()


def test_the_argument_survives_json():
    spec: Any = gym.make("CNNPrune-v0", sensitivity_every=3).spec
    again: Any = gym.make(EnvSpec.from_json(spec.to_json()))
    assert again.unwrapped.dynamics.sensitivity_every == 3
