"""Policies for networks never seen: they learn what is shown, and are the same read again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from pruning_agents.search.rows import provenance
from pruning_agents.zero_shot.demonstrations import (
    Demonstration,
    Question,
    collect,
    read_demonstrations,
    removed_shares,
)
from pruning_agents.zero_shot.learning import imitate, improve
from pruning_agents.zero_shot.policy import act, load_policy, make_policy, save_policy, worlds_of

QUICK: dict[str, Any] = {
    "networks": [0, 1],
    "recovery": "none",
    "importance_images": 16,
    "val_images": 20,
}
LIMITS = (("macs", 0.4),)


@pytest.fixture(scope="module")
def env() -> gym.Env:
    return gym.make("CNNPruneWorlds-v0", **QUICK)


def shown(env: gym.Env, network: int, from_first: bool) -> Demonstration:
    """That all cuts are in the first group, or in the last."""
    question = Question("train", network, LIMITS)
    env.reset(options=question.options)
    counts = worlds_of(env).episode.graph.sizes.copy()
    counts[0 if from_first else -1] = 1
    origin = provenance("a test")
    return Demonstration(question, "a test", 1, 0, tuple(counts.tolist()), 0.5, origin)


@pytest.mark.parametrize("from_first", [True, False])
def test_a_policy_learns_what_is_shown_to_it(env: gym.Env, from_first: bool) -> None:
    demonstrations = [shown(env, network, from_first) for network in (0, 1)]
    policy = make_policy(env, seed=1)
    losses = imitate(policy, env, demonstrations, epochs=60, learning_rate=1e-2)
    assert losses[-1] < losses[0]
    for demonstration in demonstrations:
        observation, _ = env.reset(options=demonstration.question.options)
        groups = len(worlds_of(env).episode.graph.groups)
        action = act(policy, observation)
        assert action.argmax() == (0 if from_first else groups - 1)
        assert env.action_space.contains(action) and not action[groups:].any()


def test_a_shift_of_all_logits_costs_nothing() -> None:
    sizes = np.array([4, 8])
    np.testing.assert_allclose(removed_shares(sizes, (2, 4), 0.0), [1 / 3, 2 / 3])
    assert removed_shares(sizes, (4, 8)).min() > 0


def test_ppo_goes_on_from_where_the_policy_is_and_changes_it(env: gym.Env) -> None:
    policy = make_policy(env, seed=2)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    improve(policy, env, 16, n_steps=16, batch_size=16, n_epochs=1, learning_rate=0.0)
    for name, tensor in policy.state_dict().items():
        assert name == "log_std" or torch.equal(tensor, before[name]), name
    improve(policy, env, 16, n_steps=16, batch_size=16, n_epochs=1)
    moved = policy.state_dict()["mlp_extractor.head.weight"]
    assert not torch.equal(moved, before["mlp_extractor.head.weight"])


def test_a_saved_policy_acts_as_before_also_on_another_pool(env: gym.Env, tmp_path: Path) -> None:
    policy = make_policy(env, seed=3)
    save_policy(tmp_path / "mine", policy, {"seed": 3})
    other = gym.make("CNNPruneWorlds-v0", pool="test", **{**QUICK, "networks": [0]})
    again = load_policy(tmp_path / "mine", other)
    observation, _ = other.reset(seed=0)
    np.testing.assert_array_equal(act(policy, observation), act(again, observation))


def test_a_damaged_or_unfitting_policy_is_refused(env: gym.Env, tmp_path: Path) -> None:
    path = tmp_path / "mine"
    with pytest.raises(FileNotFoundError, match="mine"):
        load_policy(path, env)
    policy = make_policy(env)
    save_policy(path, policy, {})
    weights = path.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"policy: .*mine is damaged, or for other observations"):
        load_policy(path, env)
    save_policy(path, policy, {})
    two = gym.make("CNNPruneWorlds-v0", **QUICK, budget={"macs": 0.5, "params": 0.5})
    with pytest.raises(ValueError, match="damaged, or for other observations"):
        load_policy(path, two)
    with torch.no_grad():
        policy.log_std.fill_(torch.nan)
    save_policy(path, policy, {})
    with pytest.raises(ValueError, match="not finite"):
        load_policy(path, env)


def test_searches_are_remembered_and_not_made_again(env: gym.Env, tmp_path: Path) -> None:
    path = tmp_path / "found.jsonl"
    question = Question("train", 0, LIMITS)

    def found(**arguments: Any) -> list[Demonstration]:
        origin = provenance("a test")
        return list(collect(env, [question], path, origin, agent="random-search", **arguments))

    first = found(evaluations=3)
    spent = worlds_of(env).evaluations
    assert found(evaluations=3) == first and worlds_of(env).evaluations == spent
    assert list(read_demonstrations(path).values()) == first
    sizes = worlds_of(env).episode.graph.sizes
    assert len(first[0].counts) == sizes.size and sum(first[0].counts) < sizes.sum()


def test_other_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="give CNNPruneWorlds-v0"):
        make_policy(gym.make("CNNPruneTabular-v0"))
    with pytest.raises(ValueError, match="observation='flat'"):
        make_policy(gym.make("CNNPruneWorlds-v0", **QUICK, observation="dict"))
    env = gym.make("CNNPruneWorlds-v0", **QUICK)
    with pytest.raises(ValueError, match="demonstrations is empty"):
        imitate(make_policy(env), env, [])
