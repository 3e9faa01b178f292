"""RLPruner: what it finds where the optimum is known, and how it behaves as an SB3 algorithm."""

import random
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CheckpointCallback,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import DummyVecEnv

from pruning_agents import RLPruner
from pruning_agents.rl_pruner.candidates import Candidate, remember
from pruning_agents.rl_pruner.lookahead import Lookahead, look_ahead
from tests.helpers.known_optimum import FREE_GROUP, KnownOptimumEnv, trace_chain


@pytest.fixture(scope="module")
def graph():
    return trace_chain()


def make(graph, seed=0, limit=0.75, **settings):
    settings = {"warm_start": "none", **settings}  # what rules propose has tests of its own
    return RLPruner(
        "DistributionPolicy", KnownOptimumEnv(graph, limit=limit), seed=seed, **settings
    )


@pytest.mark.parametrize("lookahead", [1, None])
@pytest.mark.parametrize("noise", ["adaptive", "multiplicative", "absolute"])
def test_it_learns_to_prune_the_group_that_costs_nothing(graph, noise, lookahead):
    # The published scale is for some 50 shares, not for 4.
    std = 0.2 if noise == "absolute" else None
    update = "elite" if noise == "adaptive" else "best"
    agent = make(
        graph,
        noise=noise,
        noise_std=std,
        lookahead=lookahead,
        update=update,
        restart=False,  # which would forget it
    )
    assert np.allclose(agent.distribution, 1 / 4)
    agent.learn(2_000)
    assert agent.distribution.argmax() == FREE_GROUP
    assert agent.distribution[FREE_GROUP] > 0.6
    assert agent.incumbent.accuracy > 0.97  # uniform pruning: below 0.9


def test_what_it_learned_is_what_its_prediction_does(graph):
    agent = make(graph)
    before, _ = evaluate_policy(agent, agent.get_env(), 1, return_episode_rewards=True)
    agent.learn(2_000)
    after, _ = evaluate_policy(agent, agent.get_env(), 1, return_episode_rewards=True)
    assert isinstance(before, list) and before[0] < -0.08  # accuracy
    assert isinstance(after, list) and after[0] > -4


class Calls(list[Any]):
    """(name, arguments, result) of each call."""


def spy(env, name, calls):
    """Note every call of a method of the innermost environment, which still does its work."""
    unwrapped = env.envs[0].unwrapped
    real = getattr(unwrapped, name)

    def noting(*arguments, **keywords):
        result = real(*arguments, **keywords)
        calls.append((name, arguments, result))
        return result

    setattr(unwrapped, name, noting)


def judged(env):
    """A growing list of the transitions made to try candidates, whether together or alone."""
    dynamics, made = env.get_attr("dynamics")[0], []

    def note(name):
        real = getattr(dynamics, name)

        def noting(states, actions):
            transitions = real(states, actions)
            made.extend(transitions)
            return transitions

        setattr(dynamics, name, noting)

    note("transition_many")
    note("commit_many")
    return made


@pytest.mark.parametrize(("total", "commits"), [(1, 0), (2, 1), (101, 1), (102, 1), (237, 3)])
def test_learn_makes_exactly_as_many_transitions_as_it_was_told(graph, total, commits):
    agent, steps = make(graph, epochs=10, patience=None), Calls()
    candidates = judged(agent.env)
    spy(agent.env, "step", steps)
    agent.learn(total)
    assert agent.num_timesteps == len(candidates) + len(steps) == total
    assert len(steps) == commits


def test_evaluations_are_the_evaluators_own_count(graph):
    agent = make(graph).learn(300)
    evaluator = agent.env.get_attr("evaluator")[0]
    assert 0 < agent.incumbent.evaluations == evaluator.evaluations <= 300


def test_a_commit_is_free_when_candidates_are_judged_after_one_step(graph):
    agent = make(graph, lookahead=1, samples_per_epoch=5, epochs=2)
    candidates = judged(agent.env)
    agent.learn(110)
    different = {after.state.keep.tobytes() for after in candidates}
    assert agent.env.get_attr("evaluator")[0].evaluations == len(different)


def test_candidates_do_not_move_the_environment_and_commits_do(graph):
    agent = make(graph, limit=0.3, samples_per_epoch=5, epochs=2, patience=None)
    steps = []

    class Watch(BaseCallback):
        def _on_step(self):
            steps.append(agent.env.env_method("state")[0].step)
            return True

    agent.learn(22, callback=Watch())
    assert steps == [0] * 10 + [1] * 11 + [2]


def test_callbacks_see_one_call_per_transition_and_ordinary_episodes(graph):
    agent = make(graph, samples_per_epoch=2, epochs=2)
    calls: list[int] = []
    ends: list[dict[str, Any]] = []

    class Watch(BaseCallback):
        def _on_step(self):
            calls.append(self.num_timesteps)
            ends.extend(info["episode"] for info in self.locals["infos"] if "episode" in info)
            assert self.locals["dones"].shape == self.locals["rewards"].shape == (1,)
            return True

    agent.learn(60, callback=Watch())
    assert calls == list(range(1, 61))
    assert len(ends) >= 2
    assert list(agent.ep_info_buffer) == ends
    assert agent._episode_num == len(ends)


def test_a_callback_can_stop_training(graph):
    agent = make(graph, samples_per_epoch=2, epochs=2)
    agent.learn(10_000, callback=StopTrainingOnMaxEpisodes(max_episodes=2))
    assert agent._episode_num == 2
    assert agent.num_timesteps < 200


def test_the_logger_gets_search_and_episode_statistics(graph):
    class Keep(KVWriter):
        def __init__(self):
            self.rows = []

        def write(self, key_values, key_excluded, step=0):
            self.rows.append(dict(key_values))

        def close(self):
            pass

    agent, keep = make(graph, samples_per_epoch=5, epochs=2), Keep()
    agent.set_logger(Logger(None, [keep]))
    agent.learn(200)
    last = keep.rows[-1]
    assert last["time/total_timesteps"] == 200
    assert last["search/incumbent_accuracy"] == agent.incumbent.accuracy
    assert last["rollout/success_rate"] == 1.0
    assert last["rollout/ep_rew_mean"] < 0


def test_the_progress_bar_runs_through(graph, capsys):
    agent = make(graph).learn(20, progress_bar=True)
    assert agent.num_timesteps == 20


@pytest.mark.parametrize("lookahead", [1, None])
def test_equal_seeds_give_equal_searches_and_others_do_not(graph, lookahead):
    first, again, other = (make(graph, seed, lookahead=lookahead).learn(250) for seed in (5, 5, 6))
    assert np.array_equal(first.distribution, again.distribution)
    assert first.incumbent == again.incumbent
    assert not np.array_equal(first.distribution, other.distribution)


def test_training_leaves_the_global_generators_alone(graph):
    def states():
        legacy = np.random.get_state(legacy=False)
        return random.getstate(), str(legacy), torch.get_rng_state().tolist()

    before = states()
    make(graph).learn(50)
    assert states() == before


def test_predicting_does_not_disturb_training(graph):
    quiet = make(graph).learn(100).learn(100, reset_num_timesteps=False)
    asked = make(graph).learn(100)
    asked.predict(np.zeros(asked.observation_space.shape, np.float32))
    asked.learn(100, reset_num_timesteps=False)
    assert np.array_equal(quiet.distribution, asked.distribution)


def test_deterministic_predictions_are_one_action_and_others_scatter_around_it(graph):
    agent = make(graph).learn(500)
    fixed, _ = agent.predict(
        np.zeros((3, *agent.observation_space.shape), np.float32), deterministic=True
    )
    assert fixed.shape == (3, 4) and (fixed == fixed[0]).all()
    assert agent.action_space.contains(fixed[0])
    loose, _ = agent.predict(np.zeros((3, *agent.observation_space.shape), np.float32))
    assert not np.array_equal(loose[0], loose[1])


def test_a_loaded_agent_predicts_the_same_and_continues_bit_by_bit(graph, tmp_path):
    agent = make(graph).learn(200)
    agent.save(tmp_path / "agent")
    loaded = RLPruner.load(tmp_path / "agent", env=KnownOptimumEnv(graph))
    observation = np.zeros(agent.observation_space.shape, np.float32)
    for deterministic in (True, False):
        assert np.array_equal(
            agent.predict(observation, deterministic=deterministic)[0],
            loaded.predict(observation, deterministic=deterministic)[0],
        )
    assert loaded.incumbent == agent.incumbent
    # Loading starts a new episode, so the original has to start one too.
    agent.set_env(KnownOptimumEnv(graph))
    for each in (agent, loaded):
        each.learn(200, reset_num_timesteps=False)
    assert loaded.num_timesteps == 400
    assert np.array_equal(agent.distribution, loaded.distribution)
    assert agent.incumbent == loaded.incumbent


def test_a_saved_agent_predicts_without_an_environment(graph, tmp_path):
    agent = make(graph).learn(100)
    agent.save(tmp_path / "agent")
    loaded = RLPruner.load(tmp_path / "agent")
    observation = np.zeros(agent.observation_space.shape, np.float32)
    assert np.array_equal(
        agent.predict(observation, deterministic=True)[0],
        loaded.predict(observation, deterministic=True)[0],
    )
    with pytest.raises(ValueError, match="env is missing"):
        loaded.learn(10)


def test_a_saved_agent_holds_neither_network_nor_images(graph, tmp_path):
    agent = make(graph).learn(100)
    agent.save(tmp_path / "agent")
    data, _, _ = load_from_zip_file(tmp_path / "agent")
    assert data is not None and not {"env", "_dynamics"} & set(data)
    assert (tmp_path / "agent.zip").stat().st_size < 200_000


def test_checkpoints_are_saved_while_it_trains(graph, tmp_path):
    callback = CheckpointCallback(save_freq=50, save_path=str(tmp_path), name_prefix="search")
    make(graph).learn(120, callback=callback)
    assert {path.name for path in tmp_path.iterdir()} == {
        "search_50_steps.zip",
        "search_100_steps.zip",
    }


def test_it_refuses_to_continue_on_another_network(graph, tmp_path):
    make(graph).learn(50).save(tmp_path / "agent")
    other = KnownOptimumEnv(graph, logit_scale=2.0)
    with pytest.raises(ValueError, match=r"env has groups of sizes .* logit_scale=2"):
        RLPruner.load(tmp_path / "agent", env=other).learn(10)


def test_an_environment_that_is_none_of_ours_is_refused():
    with pytest.raises(ValueError, match=r"env must be a pruning environment .* dynamics"):
        RLPruner("DistributionPolicy", gym.make("Pendulum-v1"))


def test_another_kind_of_action_is_refused(graph):
    env = KnownOptimumEnv(graph)
    env.dynamics.action = object()  # type: ignore[assignment]
    with pytest.raises(ValueError, match="env must be made with action='distribution'"):
        RLPruner("DistributionPolicy", env)


def test_several_environments_at_once_are_refused(graph):
    envs = DummyVecEnv([lambda: KnownOptimumEnv(graph)] * 2)
    with pytest.raises(ValueError, match="multiple envs"):
        RLPruner("DistributionPolicy", envs)


def test_it_works_through_wrappers_that_are_already_there(graph):
    env = DummyVecEnv([lambda: Monitor(KnownOptimumEnv(graph))])
    wrapped = RLPruner("DistributionPolicy", env, seed=0, warm_start="none").learn(100)
    assert np.array_equal(wrapped.distribution, make(graph).learn(100).distribution)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise", "loud"),
        ("noise_std", -1.0),
        ("clip", 1.5),
        ("epsilon", -0.1),
        ("epsilon_fraction", 2.0),
        ("samples_per_epoch", 0),
        ("epochs", 0),
        ("buffer_size", 0),
        ("lookahead", 0),
        ("depth", 0),
        ("patience", 0),
        ("discount", 1.5),
        ("update", "nobody"),
        ("minimum_std", 0.0),
        ("restart_std", -1.0),
        ("stale_below", 1.5),
        ("epsilon", float("nan")),
        ("reset_below", 1.5),
    ],
)
def test_a_bad_argument_is_named(graph, name, value):
    with pytest.raises(ValueError, match=rf"^{name}="):
        make(graph, **{name: value})


def test_there_is_no_incumbent_before_learning_and_one_however_early_it_stops(graph):
    agent = make(graph, limit=0.3, lookahead=1)
    assert agent.incumbent is None
    agent.learn(30)  # a pruning step or two of several; the distribution is followed to the end
    assert agent.incumbent is not None


def test_the_incumbent_is_the_best_feasible_candidate(graph):
    agent = make(graph)
    candidates = judged(agent.env)
    agent.learn(300)
    dynamics = agent.env.get_attr("dynamics")[0]
    ends = [after.state for after in candidates if dynamics.feasible(after.state)]
    assert agent.incumbent.accuracy == max(state.metrics.accuracy for state in ends)
    accuracies = [accuracy for _, accuracy in agent.incumbent.history]
    assert accuracies == sorted(accuracies) and len(accuracies) > 1


def follow(agent, *targets):
    """One update of the published kind for one target, else of the rank-weighted kind."""
    buffer = [Candidate(0.0, np.array(target), np.zeros(4, np.float32)) for target in targets]
    agent._follow(buffer)
    return agent.distribution


def test_an_update_moves_towards_the_target_by_the_step_size(graph):
    agent = make(graph, step_size=0.1, update="best")
    assert np.allclose(follow(agent, [0.4, 0.2, 0.2, 0.2]), [0.265, 0.245, 0.245, 0.245])


def test_no_share_changes_by_more_than_the_clip(graph):
    agent = make(graph, step_size=1.0, clip=0.25, update="best")
    # Clipped to 1.25 and 0.75 times the old shares, then renormalised.
    expected = np.array([1.25, 0.75, 0.75, 0.75]) / 3.5
    assert np.allclose(follow(agent, [0.97, 0.01, 0.01, 0.01]), expected)


def test_the_step_size_can_be_a_schedule(graph):
    agent = make(graph, step_size=lambda remaining: 0.2 * remaining, update="best")
    agent._current_progress_remaining = 0.5
    assert np.allclose(follow(agent, [0.4, 0.2, 0.2, 0.2]), [0.265, 0.245, 0.245, 0.245])


def test_an_elite_is_followed_in_log_space_with_falling_weights(graph):
    agent = make(graph, step_size=1.0)
    first, second = np.array([0.7, 0.1, 0.1, 0.1]), np.array([0.1, 0.1, 0.7, 0.1])
    w = np.log(2.5) - np.log([1, 2])
    w /= w.sum()
    mean = np.exp(w @ np.log([first, second]))
    assert np.allclose(follow(agent, first, second), mean / mean.sum())
    # Group 0 is log 7 above the floor in one of the two, and centring takes a quarter of that off.
    away = np.sqrt(w[0] * w[1]) * np.log(7)
    assert np.allclose(agent.policy.spread(np.zeros(4)), np.maximum([away, 0, away, 0], 0.1))


def test_noise_grows_again_when_an_episode_ends(graph):
    def spread(restart_std):
        # Ten candidates, one update, and the commit, with which the episode is over.
        agent = make(graph, limit=0.97, epochs=1, step_size=1.0, restart_std=restart_std).learn(11)
        assert agent._episode_num == 1
        return agent.policy.spread(agent._observation)

    assert np.array_equal(spread(0.8), np.maximum(spread(0.0), 0.8))
    assert spread(0.0).min() < 0.8


@pytest.mark.parametrize("lookahead", [1, None])
def test_candidates_judged_together_are_what_they_are_one_by_one(graph, lookahead):
    together = make(graph, lookahead=lookahead)
    apart = make(graph, lookahead=lookahead)
    dynamics = apart.env.get_attr("dynamics")[0]
    dynamics.transition_many = lambda states, actions: [
        dynamics.transition(*pair) for pair in zip(states, actions, strict=True)
    ]
    together.learn(400)
    apart.learn(400)
    assert np.array_equal(together.distribution, apart.distribution)
    assert together.incumbent == apart.incumbent


def test_a_deeper_look_adds_the_discounted_best_of_what_follows(graph):
    dynamics = KnownOptimumEnv(graph, prices=(0.5, 0.3, 0.0, 0.3), limit=0.5).dynamics
    start, dear, dearer = dynamics.initial(), *(2.0 * np.eye(4, dtype=np.float32)[[1, 0]] - 1)
    following = iter([dear, dear, dearer, dearer])
    values, made = look_ahead(
        dynamics,
        [start, start],
        [dear, dearer],
        Lookahead(steps=1, depth=2, discount=0.9, branches=2),
        lambda: next(following),
        room=100,
    )
    assert len(made) == 6
    for value, first in zip(values, (dear, dearer), strict=True):
        one = dynamics.transition(start, first)
        below = [dynamics.transition(one.state, action).state for action in (dear, dearer)]
        worst, best = sorted(dynamics.worth(below))
        assert best > worst and best != 0.0  # else neither the best nor the discount would show
        assert value == pytest.approx(dynamics.worth([one.state])[0] + 0.9 * best)


def test_each_level_of_a_deeper_look_is_discounted_once_more(graph):
    dynamics = KnownOptimumEnv(graph, prices=(0.5, 0.3, 0.0, 0.3), limit=0.3).dynamics
    actions = list(2.0 * np.eye(4, dtype=np.float32)[[0, 1, 3]] - 1)
    states = [dynamics.initial()]
    for action in actions:
        states.append(dynamics.transition(states[-1], action).state)
    worths = np.array(dynamics.worth(states[1:]))
    assert (worths != 0.0).all() and not dynamics.terminal(states[2])
    rule = Lookahead(steps=1, depth=3, discount=0.9, branches=1)
    values, _ = look_ahead(
        dynamics, states[:1], actions[:1], rule, iter(actions[1:]).__next__, room=3
    )
    assert values == pytest.approx(worths @ [1.0, 0.9, 0.81])


def test_a_deeper_look_makes_no_more_transitions_than_there_is_room_for(graph):
    dynamics = KnownOptimumEnv(graph, limit=0.5).dynamics
    start, action = dynamics.initial(), np.zeros(4, np.float32)
    rule = Lookahead(steps=1, depth=3, branches=2)
    _, made = look_ahead(dynamics, [start] * 3, [action] * 3, rule, lambda: action, room=11)
    assert len(made) == 11


@pytest.mark.parametrize("total", [7, 150])
def test_learn_counts_the_transitions_of_a_deeper_look(graph, total):
    agent = make(graph, lookahead=1, depth=2, samples_per_epoch=3, epochs=2, limit=0.5)
    candidates, steps = judged(agent.env), Calls()
    spy(agent.env, "step", steps)
    agent.learn(total)
    assert agent.num_timesteps == len(candidates) + len(steps) == total


def test_the_published_update_follows_only_an_epoch_that_beats_those_before(graph):
    published = {**RLPruner.published(), "epochs": 5, "samples_per_epoch": 1}
    agent = make(graph, **published)
    values = iter([1.0, 0.5, 2.0, 2.0, 1.5])
    epochs: list[float] = []
    followed: list[int] = []

    def judge(*_: Any) -> list[Candidate]:
        epochs.append(next(values))
        agent._judged = epochs[-1:]
        return [Candidate(epochs[-1], np.full(4, 0.25), np.zeros(4, np.float32))]

    agent._judge = judge  # type: ignore[method-assign]
    agent._follow = lambda buffer: followed.append(len(epochs))  # type: ignore[method-assign]
    agent.learn(7)
    assert len(epochs) == 5 and followed == [1, 3]


def test_a_step_in_which_nothing_new_is_seen_is_committed_early(graph):
    def commits(patience):
        agent, steps = make(graph, limit=0.97, patience=patience), Calls()
        spy(agent.env, "step", steps)
        agent.learn(1_000)
        return len(steps)

    assert commits(1) > 2 * commits(None)


def test_exploration_falls_on_a_cosine_and_ends(graph):
    agent = make(graph, epsilon=0.4, epsilon_fraction=0.1)
    rates = []
    for progress in (0.0, 0.025, 0.05, 0.075, 0.1, 0.5):
        agent._current_progress_remaining = 1.0 - progress
        rates.append(agent.exploration_rate)
    # At the quarters, where a straight line would be at 0.3 and 0.1.
    quarters = [0.2 * (1 + np.sqrt(0.5)), 0.2 * (1 - np.sqrt(0.5))]
    assert np.allclose(rates, [0.4, quarters[0], 0.2, quarters[1], 0.0, 0.0], atol=1e-9)


def test_with_full_exploration_not_always_the_best_is_committed(graph):
    def committed(epsilon):
        agent = make(graph, epsilon=epsilon, epsilon_fraction=1.0, samples_per_epoch=5, epochs=1)
        ranks: list[int] = []
        agent._commit = watch(agent._commit, agent, ranks)  # type: ignore[method-assign]
        agent.learn(100)
        return ranks

    assert set(committed(0.0)) == {0}
    assert set(committed(1.0)) > {0}


def watch(commit, agent, ranks):
    """Note which member of the buffer the environment was really stepped with."""

    def watched(buffer):
        real_step, actions = agent.env.step, []

        def step(action):
            actions.append(action[0])
            return real_step(action)

        agent.env.step = step
        result = commit(buffer)
        agent.env.step = real_step
        ranks.append([kept.action is actions[0].base for kept in buffer].index(True))
        return result

    return watched


def test_the_buffer_keeps_the_best_and_the_newest_of_equals():
    def candidate(q, tag):
        return Candidate(q, np.full(2, tag), np.zeros(2, np.float32))

    buffer: list[Candidate] = []
    for q, tag in ((1.0, 0), (3.0, 1), (2.0, 2), (3.0, 3), (0.0, 4)):
        buffer = remember(buffer, candidate(q, tag), 3)
    assert [(kept.q, kept.probabilities[0]) for kept in buffer] == [(3, 3), (3, 1), (2, 2)]


@pytest.mark.parametrize("constraint", [{}, {"constraint": "project", "max_steps": 1}])
@pytest.mark.parametrize("evaluations", [60, 450])
def test_deterministic_predictions_are_the_way_to_the_incumbent(tmp_path, constraint, evaluations):
    env = (
        gym.make("CNNPrune-v0", recovery="none", **constraint)
        if constraint
        else gym.make("CNNPruneTabular-v0")
    )
    agent = RLPruner("DistributionPolicy", env, seed=0).learn(evaluations)
    assert agent.incumbent is not None
    agent.save(tmp_path / "agent")
    for player in (agent, RLPruner.load(tmp_path / "agent")):
        observation, _ = env.reset(seed=0)
        terminated = False
        while not terminated:
            action, _ = player.predict(observation, deterministic=True)
            observation, _, terminated, _, _ = env.step(action)
        assert (
            env.get_wrapper_attr("state")().counts.tolist() == agent.incumbent.state.counts.tolist()
        )


@pytest.mark.slow
def test_a_search_that_has_converged_begins_again_elsewhere():
    spent = []
    for restart in (False, True):
        env = gym.make("CNNPruneTabular-v0")
        RLPruner("DistributionPolicy", env, seed=0, restart=restart).learn(10_000)
        spent.append(env.unwrapped.evaluations)  # type: ignore[attr-defined]
    assert spent[1] > 1.3 * spent[0]


def test_a_commit_leads_to_no_less_than_the_one_before_it_promised():
    agent = RLPruner("DistributionPolicy", gym.make("CNNPruneTabular-v0"), seed=0, epsilon=0.0)
    commit = agent._commit
    promised: list[float] = []
    shortfalls: list[float] = []

    def watched(buffer):
        rewards, dones, infos = commit(buffer)
        if promised:
            shortfalls.append(promised.pop() - buffer[0].q)
        if not dones[0]:
            promised.append(buffer[0].q)
        return rewards, dones, infos

    agent._commit = watched  # type: ignore[method-assign]
    agent.learn(700)
    assert len(shortfalls) > 5 and max(shortfalls) < 1e-4


def test_a_restart_leaves_the_distribution_of_the_best_episode_to_be_predicted(graph):
    policy = make(graph).policy  # its environment does not say how far an episode has come
    seen = np.zeros(policy.observation_space.shape, np.float32)
    policy.distribution = np.array([0.1, 0.2, 0.6, 0.1])
    before, _ = policy.predict(seen, deterministic=True)
    for seed in range(2):
        policy.restart(np.random.default_rng(seed))
        assert np.array_equal(policy.predict(seen, deterministic=True)[0], before)
    assert not np.allclose(policy.distribution, [0.1, 0.2, 0.6, 0.1], atol=0.1)
    policy.imitate([seen], [before])
    assert not np.allclose(policy.predict(seen, deterministic=True)[0], before)
