"""PPOLagrangian: what it reduces to, how its two critics are kept apart, and what it counts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from pruning_agents import PPOLagrangian
from pruning_agents.ppo_lagrangian.cost_collector import read_costs
from tests.helpers.cmdps import ScriptedEnv
from tests.helpers.training import SMALL, TINY, layers, plain, quadratic, same, scripted, weights


class Snapshot(BaseCallback):
    """Copies of the rollout buffer's cost arrays, as each rollout ends."""

    def __init__(self):
        super().__init__()
        self.buffers: list[dict[str, Any]] = []

    def _on_step(self):
        return True

    def _on_rollout_end(self):
        buffer = vars(self.model.rollout_buffer)  # type: ignore[attr-defined]
        self.buffers.append(
            {k: v.copy() for k, v in buffer.items() if isinstance(v, np.ndarray)}
            | {"critic": {k: v.clone() for k, v in self.model.cost_critic.state_dict().items()}}  # type: ignore[attr-defined]
        )


# What it reduces to


def _adam(agent: Any) -> dict[Any, dict[str, torch.Tensor]]:
    return agent.policy.optimizer.state_dict()["state"]


@pytest.mark.parametrize("make_env", [quadratic, layers])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"normalize_advantage": False},
        {"target_kl": 1e-4},
        {"clip_range_vf": 0.1, "ent_coef": 0.01, "gamma": 1.0},
    ],
)
def test_with_the_multiplier_held_at_zero_it_is_ppo_bit_for_bit(make_env, arguments):
    both = {**SMALL, **arguments}
    ppo = PPO("MlpPolicy", make_env(), **both).learn(160)
    ours = PPOLagrangian(
        "MlpPolicy", make_env(), controller="lagrangian", multiplier_lr=0.0, **both
    ).learn(160)
    assert same(weights(ppo), weights(ours))
    ppo_state, our_state = (_adam(agent) for agent in (ppo, ours))
    assert ppo_state.keys() == our_state.keys()
    assert all(same(ppo_state[key], our_state[key]) for key in ppo_state)
    assert [r.multiplier for r in ours.history] == [0.0] * 5


def test_with_state_dependent_noise_it_is_ppo_too():
    both = {**SMALL, "use_sde": True, "sde_sample_freq": 4}
    ppo = PPO("MlpPolicy", quadratic(), **both).learn(64)
    ours = PPOLagrangian(
        "MlpPolicy", quadratic(), controller="lagrangian", multiplier_lr=0.0, **both
    ).learn(64)
    assert same(weights(ppo), weights(ours))


def test_building_it_draws_as_much_from_the_global_generators_as_building_ppo():
    states = []
    for cls in (PPO, PPOLagrangian):
        agent = cls("MlpPolicy", quadratic(), **SMALL)
        states.append(
            (weights(agent), torch.get_rng_state(), str(np.random.get_state(legacy=False)))
        )
    assert same(states[0][0], states[1][0])
    assert torch.equal(states[0][1], states[1][1])
    assert states[0][2] == states[1][2]


def test_with_an_infinite_limit_the_multiplier_falls_to_zero():
    agent = PPOLagrangian(
        "MlpPolicy", quadratic(), cost_limit=math.inf, multiplier_init=0.3, **SMALL
    ).learn(32 * 6)
    assert agent.history[0].multiplier < 0.3
    assert agent.multiplier.value == 0.0
    assert agent.status == "feasible"


def test_costs_and_limit_in_other_units_train_the_same_agent():
    one, eight = (
        PPOLagrangian(
            "MlpPolicy",
            quadratic(unit=u),
            cost_limit=0.5 * u,
            multiplier_init=2.0,
            multiplier_gain=0.5,
            **SMALL,
        ).learn(160)
        for u in (1.0, 8.0)
    )
    assert same(weights(one), weights(eight))
    assert [r.multiplier for r in one.history] == [r.multiplier for r in eight.history]
    assert eight.history[-1].cost == pytest.approx(8.0 * one.history[-1].cost)
    assert one.multiplier.value > 0 and one.price == pytest.approx(8.0 * eight.price)


# Two critics


def test_neither_critics_loss_reaches_the_other():
    agent = PPOLagrangian("MlpPolicy", quadratic(), **SMALL)
    observations = torch.rand(5, 1)
    policy, critic = list(agent.policy.parameters()), list(agent.cost_critic.parameters())
    assert not {id(p) for p in policy} & {id(p) for p in critic}
    agent.cost_critic(observations).square().mean().backward()
    assert all(p.grad is None for p in policy)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in critic[-2:])
    agent.cost_critic.zero_grad()
    agent.policy.predict_values(observations).square().mean().backward()
    assert all(p.grad is None for p in critic)


def test_training_one_critic_leaves_the_other_as_it_was():
    agent = PPOLagrangian("MlpPolicy", quadratic(), **SMALL)
    before, critic = weights(agent), dict(agent.cost_critic.state_dict())
    critic = {name: value.clone() for name, value in critic.items()}
    agent.learn(32)
    assert not same(critic, agent.cost_critic.state_dict())
    between, critic = weights(agent), agent.cost_critic.state_dict()
    critic = {name: value.clone() for name, value in critic.items()}
    assert not same(before, between)
    agent._train_cost_critic()
    assert same(between, weights(agent)) and not same(critic, agent.cost_critic.state_dict())


@pytest.mark.parametrize("truncated", [False, True])
def test_costs_bootstrap_at_a_truncation_and_not_at_a_termination(truncated):
    env = scripted(((1.0, 2.0, 4.0),), truncated=truncated)
    agent, snapshot = PPOLagrangian("MlpPolicy", env, cost_limit=2.0, **TINY), Snapshot()
    agent.learn(8, callback=snapshot)
    buffer = snapshot.buffers[0]
    assert buffer["costs"].ravel().tolist() == [0.5, 1.0, 2.0, 0.5, 1.0, 2.0, 0.5, 1.0]
    assert np.flatnonzero(buffer["cost_ends"]).tolist() == [2, 5]
    agent.cost_critic.load_state_dict(buffer["critic"])
    at_end = agent.cost_critic.values(torch.tensor([[0.3]]))[0]
    expected = at_end if truncated else 0.0
    assert at_end != 0.0
    assert buffer["cost_end_values"].ravel()[[2, 5]] == pytest.approx(expected)
    assert not buffer["cost_end_values"].ravel()[[0, 1, 3, 4, 6, 7]].any()
    # The last step of an episode: its cost, and what is expected of the state it stopped in.
    assert buffer["cost_returns"].ravel()[2] == pytest.approx(2.0 + expected, abs=1e-6)
    # The last step of the rollout bootstraps from the state that follows.
    following = agent.cost_critic.values(torch.tensor([[0.2]]))[0]
    assert buffer["cost_returns"].ravel()[7] == pytest.approx(1.0 + following, abs=1e-6)


def test_when_costs_are_the_rewards_so_are_their_advantages():
    class Copying(PPOLagrangian):
        def _setup_model(self):
            super()._setup_model()
            values = self.policy.predict_values
            copied = lambda obs: values(obs).detach().numpy().flatten()  # noqa: E731
            self.cost_critic.values = copied  # type: ignore[method-assign, assignment]

    costs = ((1.0, 2.0, 4.0), (3.0, -1.0))
    for truncated in (False, True):
        snapshot = Snapshot()
        agent = Copying("MlpPolicy", scripted(costs, truncated=truncated), cost_gamma=0.99, **TINY)
        agent.learn(8, callback=snapshot)
        buffer = snapshot.buffers[0]
        assert np.allclose(buffer["cost_advantages"], buffer["advantages"], atol=1e-5)
        assert np.abs(buffer["advantages"]).max() > 0.1


# The multiplier


def test_the_multiplier_moves_by_the_step_times_the_relative_violation_once_per_rollout():
    # 8 steps: episodes of cost 3 and 6, then 3 and 6 again, but the last one is not over.
    agent = plain(scripted(((1.0, 2.0), (1.0, 2.0, 3.0))), cost_limit=2.0, multiplier_lr=0.25)
    agent.learn(8)
    mean = (3.0 + 6.0 + 3.0) / 3.0
    assert agent.history[0].cost == pytest.approx(mean)
    assert agent.history[0].episodes == 3
    assert agent.multiplier.value == pytest.approx(0.25 * (mean - 2.0) / 2.0)
    assert agent.multiplier.updates == 1


def test_the_multiplier_is_the_new_one_when_the_policy_is_updated():
    agent, seen = plain(scripted(((2.0,),)), multiplier_lr=0.5), []
    real = agent._train_policy

    def watch():
        seen.append(agent.rollout_buffer.multiplier)
        real()

    agent._train_policy = watch  # type: ignore[method-assign]
    agent.learn(16)
    assert seen == [0.5, 1.0]


def test_without_a_finished_episode_the_multiplier_stays():
    agent = plain(scripted(((5.0,) * 20,)), multiplier_init=1.0, multiplier_lr=0.1)
    agent.learn(16)
    assert agent.multiplier.value == 1.0 and agent.multiplier.updates == 0
    assert agent.status == "unknown" and not agent.feasible
    assert [(r.episodes, math.isnan(r.cost)) for r in agent.history] == [(0, True)] * 2
    agent.learn(8, reset_num_timesteps=False)  # the 20th step is in it
    assert agent.history[-1].cost == 100.0
    assert agent.multiplier.value == pytest.approx(1.0 + 0.1 * 99.0)


@pytest.mark.parametrize("n_steps", [2, 3, 4, 5, 7, 12])
def test_an_episodes_cost_does_not_depend_on_where_rollouts_cut_it(n_steps):
    agent = plain(scripted(((1.0, 0.0, 2.0, 1.0),)), n_steps=n_steps, batch_size=2, cost_limit=2.0)
    agent.learn(n_steps * 12)
    costs = [record.cost for record in agent.history]
    assert {cost for cost in costs if not math.isnan(cost)} == {4.0}
    assert sum(record.episodes for record in agent.history) == n_steps * 12 // 4
    updates = sum(not math.isnan(cost) for cost in costs)
    assert agent.multiplier.value == pytest.approx(0.1 * updates)


def test_truncated_episodes_count_and_every_environment_does():
    env = DummyVecEnv(
        [
            lambda: Monitor(ScriptedEnv(((1.0, 1.0),), truncated=True)),
            lambda: Monitor(ScriptedEnv(((1.0, 2.0, 3.0, 4.0),))),
        ]
    )
    agent = plain(env).learn(16)
    assert agent.history[0].episodes == 4 + 2
    assert agent.history[0].cost == pytest.approx((4 * 2.0 + 2 * 10.0) / 6)


@pytest.mark.parametrize("norm_obs", [False, True])
def test_normalised_rewards_and_observations_leave_costs_raw(norm_obs):
    costs, rewards = ((3.0, 4.0), (5.0,)), ((30.0, 40.0), (50.0,))
    bare = plain(scripted(costs, rewards=rewards)).learn(24)
    normalised = VecNormalize(scripted(costs, rewards=rewards), norm_obs=norm_obs)
    ours = plain(normalised).learn(24)
    assert [r.multiplier for r in bare.history] == [r.multiplier for r in ours.history]
    for first, second in zip(bare.history, ours.history, strict=True):
        assert first.cost == second.cost
        assert second.reward == pytest.approx(first.reward) == pytest.approx(10.0 * second.cost)


def test_a_reset_drops_the_costs_of_the_episode_that_it_ends():
    agent = plain(scripted(((1.0,) * 12,)))
    agent.learn(8).learn(8)
    assert agent.multiplier.updates == 0  # both stopped after 8 of 12 steps
    agent.learn(8, reset_num_timesteps=False)
    assert agent.history[-1].cost == 12.0


# Missing costs


@pytest.mark.parametrize("missing_at", [0, 5])
def test_a_step_without_a_cost_is_an_error_at_once(missing_at):
    agent = plain(scripted(((1.0, 2.0, 3.0),), missing_at=missing_at))
    with pytest.raises(ValueError, match="info of environment 0 has no key 'cost'"):
        agent.learn(8)
    assert agent.num_timesteps == missing_at + 1


def test_the_environment_without_costs_is_named():
    costs = ((1.0,),)
    env = DummyVecEnv([lambda: ScriptedEnv(costs), lambda: ScriptedEnv(costs, missing_at=2)])
    with pytest.raises(ValueError, match="info of environment 1 has no key 'cost'"):
        plain(env).learn(16)


@pytest.mark.parametrize("cost", [math.nan, math.inf, "1.0", None, np.zeros(2)])
def test_a_cost_that_is_no_finite_number_is_refused(cost):
    with pytest.raises(ValueError, match=r"info\['cost'\]="):
        read_costs([{"cost": 1.0}, {"cost": cost}])


@pytest.mark.parametrize("cost", [2, 2.0, np.float32(2), np.array(2.0)])
def test_any_real_number_is_a_cost(cost):
    assert read_costs([{"cost": cost}]).tolist() == [2.0]
