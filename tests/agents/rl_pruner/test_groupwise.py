"""Networks with shared weights over groups: order, number of groups, and learning."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import PPO

from pruning_agents import RLPruner
from pruning_agents.rl_pruner.candidates import Elite
from pruning_agents.rl_pruner.groupwise_policy import GroupwisePolicy
from pruning_agents.stock.groupwise import (
    GroupEncoder,
    GroupwiseActorCriticPolicy,
    GroupwiseExtractor,
    pool,
)
from tests.helpers.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain

FEATURES, TAIL = 10, 6


@pytest.fixture(scope="module")
def graph():
    return trace_chain()


def space(groups):
    return spaces.Box(-1.0, 1.0, (FEATURES * groups + TAIL,), np.float32)


def observations(groups, count=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand((count, FEATURES * groups + TAIL), generator=generator)


def permuted(seen, order):
    """The observations with their groups in another order."""
    size = FEATURES * len(order)
    table = seen[:, :size].reshape(len(seen), len(order), FEATURES)[:, order]
    return torch.cat([table.flatten(1), seen[:, size:]], dim=1)


def test_permuting_the_groups_permutes_their_embeddings_and_leaves_the_pool():
    encoder, seen, order = GroupEncoder(space(5), 5), observations(5), [3, 0, 4, 1, 2]
    plain, moved = encoder(seen), encoder(permuted(seen, order))
    assert plain.shape == (3, 5, 32)
    assert torch.allclose(moved, plain[:, order], atol=1e-6)
    assert torch.allclose(pool(moved), pool(plain), atol=1e-6)
    assert not torch.allclose(plain[:, 0], plain[:, 1], atol=1e-3)


def test_a_groups_embedding_depends_on_the_other_groups():
    encoder, seen = GroupEncoder(space(3), 3), observations(3)
    other = seen.clone()
    other[:, FEATURES : 2 * FEATURES] += 0.5
    assert not torch.allclose(encoder(seen)[:, 0], encoder(other)[:, 0], atol=1e-4)


def test_the_encoders_weights_fit_any_number_of_groups():
    small, large = GroupEncoder(space(3), 3), GroupEncoder(space(8), 8)
    large.load_state_dict(small.state_dict())
    assert large(observations(8)).shape == (3, 8, 32)


def test_an_observation_too_short_for_the_table_is_refused():
    with pytest.raises(ValueError, match=r"5 groups . 10 group_features = 50"):
        GroupEncoder(space(4), 5)


@pytest.mark.parametrize("pooled", [False, True])
def test_the_extractor_works_under_a_stock_policy(graph, pooled):
    env = KnownOptimumEnv(graph)
    agent = PPO(
        "MlpPolicy",
        env,
        n_steps=16,
        batch_size=16,
        n_epochs=1,
        policy_kwargs={
            "features_extractor_class": GroupwiseExtractor,
            "features_extractor_kwargs": {"groups": 4, "hidden": 8, "pooled": pooled},
        },
    ).learn(16)
    features = agent.policy.extract_features(torch.as_tensor(np.stack([env.reset()[0]] * 2)))
    assert isinstance(features, torch.Tensor)
    assert features.shape == (2, 16 if pooled else 48)


def actor_critic(groups):
    action_space = spaces.Box(-1.0, 1.0, (groups,), np.float32)
    return GroupwiseActorCriticPolicy(space(groups), action_space, lambda _: 1e-3)


def test_permuting_the_groups_permutes_actions_and_leaves_values():
    policy, seen, order = actor_critic(5), observations(5), [3, 0, 4, 1, 2]
    with torch.no_grad():
        (plain, value, _), (moved, same, _) = (
            policy(each, deterministic=True) for each in (seen, permuted(seen, order))
        )
    assert torch.allclose(moved, plain[:, order], atol=1e-6)
    assert torch.allclose(same, value, atol=1e-6)
    assert plain.std(dim=1).min() > 0


def test_an_actor_critic_policy_takes_the_weights_of_one_for_another_network():
    small, large = actor_critic(3), actor_critic(8)
    large.load_state_dict(small.state_dict())
    actions, values, log_probabilities = large(observations(8))
    assert actions.shape == (3, 8)
    assert values.shape == (3, 1) and log_probabilities.shape == (3,)


def test_ppo_trains_saves_and_loads_the_groupwise_policy(graph, tmp_path):
    env = KnownOptimumEnv(graph)
    agent = PPO(GroupwiseActorCriticPolicy, env, n_steps=32, batch_size=32, n_epochs=2, seed=0)
    before = agent.policy.state_dict()["mlp_extractor.head.weight"].clone()
    agent.learn(64)
    assert not torch.equal(before, agent.policy.state_dict()["mlp_extractor.head.weight"])
    agent.save(tmp_path / "agent")
    seen = env.reset()[0]
    loaded = PPO.load(tmp_path / "agent", env=env)
    for deterministic in (True, False):
        torch.manual_seed(0)
        action, _ = agent.predict(seen, deterministic=deterministic)
        torch.manual_seed(0)
        assert np.array_equal(action, loaded.predict(seen, deterministic=deterministic)[0])


def pruner(graph, seed=0, **settings):
    settings = {"warm_start": "none", **settings}  # what rules propose has tests of its own
    return RLPruner("GroupwisePolicy", KnownOptimumEnv(graph), seed=seed, **settings)


def policy_for(groups, **keywords):
    return GroupwisePolicy(
        space(groups),
        spaces.Box(-1.0, 1.0, (groups,), np.float32),
        sizes=np.full(groups, 12),
        logit_scale=3.0,
        noise="adaptive",
        noise_std=1.2,
        rng=np.random.default_rng(0),
        **keywords,
    )


def test_it_starts_with_the_same_share_of_every_group_and_the_given_noise(graph):
    policy = policy_for(4)
    seen = observations(4)[0].numpy()
    assert np.allclose(policy.shares(seen), 0.25)
    assert np.allclose(policy.spread(seen), 1.2)


def test_following_an_elite_reaches_it_in_its_state_and_keeps_what_other_states_had():
    policy = policy_for(4, gradient_steps=300)
    here, there = observations(4, 2).numpy()
    first = np.array([[0.7, 0.1, 0.1, 0.1]] * 2)
    second = np.array([[0.1, 0.1, 0.1, 0.7]] * 2)
    policy.follow(here, Elite(first, np.array([0.6, 0.4])), 1.0, None)
    policy.follow(there, Elite(second, np.array([0.6, 0.4])), 1.0, None)
    assert np.allclose(policy.shares(here), first[0], atol=0.05)
    assert np.allclose(policy.shares(there), second[0], atol=0.05)
    assert np.allclose(policy.spread(here), policy.minimum_std, rtol=0.3)


def test_its_weights_fit_another_number_of_groups():
    small, large = policy_for(3), policy_for(7)
    elite = Elite(np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1]]), np.array([0.5, 0.5]))
    small.follow(observations(3)[0].numpy(), elite, 1.0, None)
    large.network.load_state_dict(small.network.state_dict())
    shares = large.shares(observations(7)[0].numpy())
    assert shares.shape == (7,) and np.ptp(shares) > 0.01


def test_permuting_the_groups_permutes_its_distribution():
    policy, order = policy_for(4), [2, 0, 3, 1]
    seen = observations(4, 1)
    elite = Elite(np.array([[0.7, 0.1, 0.1, 0.1]] * 2), np.array([0.5, 0.5]))
    policy.follow(seen[0].numpy(), elite, 1.0, None)
    plain, moved = (policy.shares(each[0].numpy()) for each in (seen, permuted(seen, order)))
    assert np.allclose(moved, plain[order], atol=1e-6) and np.ptp(plain) > 0.1


def test_rl_pruner_learns_with_it_to_prune_the_group_that_costs_nothing(graph):
    agent = pruner(graph, restart=False).learn(250)
    assert agent.distribution.argmax() == FREE_GROUP
    assert agent.distribution[FREE_GROUP] > 0.6
    assert agent.incumbent.accuracy > 0.97


def test_rl_pruner_with_it_continues_bit_by_bit_after_loading(graph, tmp_path):
    agent = pruner(graph).learn(60)
    agent.save(tmp_path / "agent")
    loaded = RLPruner.load(tmp_path / "agent", env=KnownOptimumEnv(graph))
    agent.set_env(KnownOptimumEnv(graph))
    for each in (agent, loaded):
        each.learn(60, reset_num_timesteps=False)
    assert np.array_equal(agent.distribution, loaded.distribution)
    assert agent.incumbent == loaded.incumbent


def test_making_it_leaves_the_global_generator_alone(graph):
    before = torch.get_rng_state()
    pruner(graph).learn(30)
    assert torch.equal(before, torch.get_rng_state())


def test_its_deterministic_prediction_is_a_network_that_imitates_the_best_episode(tmp_path):
    env = gym.make("CNNPruneTabular-v0")
    agent = RLPruner("GroupwisePolicy", env, seed=0, epsilon=0.0).learn(400)
    agent.save(tmp_path / "agent")
    for player in (agent, RLPruner.load(tmp_path / "agent")):
        observation, info = env.reset(seed=0)
        terminated = False
        while not terminated:
            action, _ = player.predict(observation, deterministic=True)
            observation, _, terminated, _, info = env.step(action)
        assert agent.incumbent is not None
        # Actions are met to within a few hundredths, which may move a unit or two.
        assert info["accuracy"] >= agent.incumbent.state.latest.accuracy - 0.08
    assert not np.array_equal(action, player.predict(0 * observation, deterministic=True)[0])


def test_a_restart_moves_the_search_and_not_what_is_predicted():
    policy, here = policy_for(4, gradient_steps=300), observations(4)[0].numpy()
    policy.follow(
        here, Elite(np.array([[0.7, 0.1, 0.1, 0.1]] * 2), np.array([0.6, 0.4])), 1.0, None
    )
    done = np.array([0.9, -0.3, 0.2, -1.0], np.float32)
    policy.imitate([here], [done])
    assert np.allclose(policy.predict(here, deterministic=True)[0], done, atol=0.02)
    searched = policy.shares(here)
    policy.restart(np.random.default_rng(1))
    assert np.allclose(policy.predict(here, deterministic=True)[0], done, atol=0.02)
    assert not np.allclose(policy.shares(here), searched, atol=0.1)
    assert np.allclose(policy.spread(here), 1.2, rtol=0.2)
