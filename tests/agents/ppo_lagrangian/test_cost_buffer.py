"""Cost advantages computed by hand, and their place beside those of the rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.buffers import RolloutBuffer

from pruning_agents.ppo_lagrangian.cost_buffer import (
    CostRolloutBuffer,
    DictCostRolloutBuffer,
    gae,
    lagrangian_advantages,
)

BOX = spaces.Box(-1.0, 1.0, (2,), np.float32)
ACTIONS = spaces.Box(-1.0, 1.0, (1,), np.float32)
T, N = 5, 2


def column(*values):
    return np.array(values, np.float32)[:, None]


def test_five_steps_with_a_termination_and_a_truncation_are_as_computed_by_hand():
    # γ = λ = 0.5. The episode terminates with step 1, the next is truncated with step 3 in a state
    # of value 8, and the last goes on in a state of value 4.
    advantages = gae(
        column(1, 2, 3, 4, 5),
        column(2, 4, 6, 8, 10),
        np.array([[False], [True], [False], [True], [False]]),
        column(0, 0, 0, 8, 0),
        np.array([4], np.float32),
        gamma=0.5,
        gae_lambda=0.5,
    )
    delta_4 = 5 + 0.5 * 4 - 10  # bootstraps from what follows the rollout
    delta_3 = 4 + 0.5 * 8 - 8  # bootstraps from where it was cut off
    delta_2 = 3 + 0.5 * 8 - 6
    delta_1 = 2 - 4  # bootstraps from nothing
    delta_0 = 1 + 0.5 * 4 - 2
    by_hand = [delta_0 + 0.25 * delta_1, delta_1, delta_2 + 0.25 * delta_3, delta_3, delta_4]
    assert by_hand == [0.5, -2.0, 1.0, 0.0, -3.0]
    assert advantages.ravel().tolist() == by_hand


def fill(buffer, rng, *, same=False):
    """Random steps; with `same`, the costs and their critic repeat the rewards and theirs."""
    starts = np.ones(N, bool)
    for _ in range(T):
        ends = rng.random(N) < 0.4
        truncated = ends & (rng.random(N) < 0.5)
        signals, values = rng.normal(size=N), rng.normal(size=N)
        end_values = np.where(truncated, rng.normal(size=N), 0.0)
        # What SB3 does at a truncation: the bootstrap is added to the reward.
        rewards = signals + buffer.gamma * end_values
        costs, cost_values = (signals, values) if same else (rng.random(N), rng.normal(size=N))
        buffer.add_cost(costs, cost_values, ends, end_values)
        space = buffer.observation_space
        if isinstance(space, spaces.Dict):
            observations = {key: rng.normal(size=(N, 2)) for key in space.spaces}
        else:
            observations = rng.normal(size=(N, 2))
        buffer.add(
            observations,
            rng.normal(size=(N, 1)),
            rewards,
            starts,
            torch.tensor(values),
            torch.tensor(rng.normal(size=N)),
        )
        starts = ends
    last = rng.normal(size=N).astype(np.float32)
    buffer.compute_returns_and_advantage(torch.tensor(last), starts)
    buffer.compute_cost_returns_and_advantage(last)


def make(cls=CostRolloutBuffer, space=BOX, **arguments):
    return cls(T, space, ACTIONS, "cpu", gae_lambda=0.9, gamma=0.8, n_envs=N, **arguments)


def test_a_cost_that_is_the_reward_has_the_rewards_advantage():
    for seed in range(10):
        buffer = make(cost_gamma=0.8, cost_gae_lambda=0.9)
        fill(buffer, np.random.default_rng(seed), same=True)
        assert np.allclose(buffer.cost_advantages, buffer.advantages, atol=1e-5)
        assert np.allclose(buffer.cost_returns, buffer.returns, atol=1e-5)


def test_costs_have_a_discount_of_their_own():
    buffer = make(cost_gamma=1.0, cost_gae_lambda=1.0)
    fill(buffer, np.random.default_rng(0), same=True)
    assert not np.allclose(buffer.cost_advantages, buffer.advantages, atol=1e-2)


def test_a_reset_empties_the_costs():
    buffer = make()
    fill(buffer, np.random.default_rng(0))
    list(buffer.get(3))
    buffer.reset()
    for name in ("costs", "cost_values", "cost_end_values", "cost_ends", "cost_returns"):
        array = getattr(buffer, name)
        assert array.shape == (T, N) and not array.any()
    assert buffer.cost_advantages.shape == (T, N) and not buffer.cost_advantages.any()


@pytest.mark.parametrize(
    ("cls", "space"),
    [
        (CostRolloutBuffer, BOX),
        (DictCostRolloutBuffer, spaces.Dict({"a": BOX, "b": BOX})),
    ],
)
def test_each_row_of_a_mini_batch_is_one_step(cls, space):
    buffer = make(cls, space)
    fill(buffer, np.random.default_rng(0))
    by_action = {
        float(buffer.actions[t, n, 0]): (buffer.cost_advantages[t, n], buffer.cost_returns[t, n])
        for t in range(T)
        for n in range(N)
    }
    rows = [
        (float(action), (float(advantage), float(returns)))
        for samples in buffer.get(3)
        for action, advantage, returns in zip(
            samples.actions, samples.cost_advantages, samples.cost_returns, strict=True
        )
    ]
    assert len(rows) == T * N
    assert dict(rows) == by_action


def test_mini_batches_come_mixed_and_the_critics_own_do_not():
    buffer = make()
    fill(buffer, np.random.default_rng(0))
    raw = np.sort(buffer.advantages.ravel())
    buffer.multiplier, buffer.multiplier_scale, buffer.normalize_advantage = 3.0, 0.5, False
    np.random.seed(0)
    (batch,) = buffer.get(T * N)
    (own,) = buffer.cost_batches(T * N, np.random.default_rng(0))
    assert np.array_equal(np.sort(own.advantages.numpy()), raw)
    lookup = dict(zip(own.actions[:, 0].tolist(), own.advantages, strict=True))
    rewards = torch.stack([lookup[action] for action in batch.actions[:, 0].tolist()])
    centred = batch.cost_advantages - batch.cost_advantages.mean()
    assert torch.allclose(batch.advantages, (rewards - 1.5 * centred) / 4.0)


def test_the_critics_order_is_its_own_and_the_policys_is_sb3s():
    ours, theirs = make(), RolloutBuffer(T, BOX, ACTIONS, "cpu", n_envs=N)
    fill(ours, np.random.default_rng(0))
    theirs.__dict__.update(
        {name: getattr(ours, name).copy() for name in vars(theirs) if name in _ARRAYS},
        full=True,
    )
    np.random.seed(1)
    expected = [samples.actions.tolist() for samples in theirs.get(3)]
    after = np.random.get_state(legacy=False)["state"]["pos"]
    np.random.seed(1)
    assert [samples.actions.tolist() for samples in ours.get(3)] == expected
    list(ours.cost_batches(3, np.random.default_rng(0)))
    assert np.random.get_state(legacy=False)["state"]["pos"] == after


_ARRAYS = ("observations", "actions", "values", "log_probs", "advantages", "returns")


def advantages(seed=0, size=64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator), torch.randn(size, generator=generator) + 5.0


def test_with_a_multiplier_of_zero_the_mixture_is_ppos_advantage_bit_for_bit():
    rewards, costs = advantages()
    standardised = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
    assert torch.equal(lagrangian_advantages(rewards, costs, 0.0, 2.0, True), standardised)
    assert torch.equal(lagrangian_advantages(rewards, costs, 0.0, 2.0, False), rewards)


def test_the_mixture_is_a_multiple_of_the_lagrangians_advantage_whatever_its_spread():
    # What λ trades for what may not depend on how widely a policy happens to scatter.
    rewards, costs = advantages()
    lagrangian = rewards - rewards.mean() - 3.0 * (costs - costs.mean())
    for spread in (1.0, 0.05):
        mixed = lagrangian_advantages(spread * rewards, spread * costs, 1.5, 2.0, True)
        ratio = mixed / lagrangian
        assert torch.allclose(ratio, ratio.mean(), rtol=1e-4)
        assert ratio.mean() == pytest.approx(1.0 / (2.5 * rewards.std().item()), rel=1e-4)


def test_costs_are_centred_and_keep_their_spread():
    rewards, costs = advantages()
    once = rewards - lagrangian_advantages(rewards, costs, 1.0, 1.0, False) * 2.0
    ten_times = rewards - lagrangian_advantages(rewards, 10.0 * costs, 1.0, 1.0, False) * 2.0
    assert once.mean().abs() < 1e-5
    assert torch.allclose(ten_times, 10.0 * once, atol=1e-4)


def test_costs_still_count_and_stay_finite_where_all_rewards_are_equal():
    _, costs = advantages()
    mixed = lagrangian_advantages(torch.zeros(64), costs, 1.0, 1.0, True)
    assert torch.allclose(mixed, -100.0 * (costs - costs.mean()) / 2.0)


def test_a_mini_batch_of_one_step_is_mixed_as_it_is():
    mixed = lagrangian_advantages(torch.tensor([2.0]), torch.tensor([3.0]), 1.0, 1.0, True)
    assert mixed.tolist() == [-0.5]
