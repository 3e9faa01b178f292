"""`groups=`: an environment in which only some groups are pruned, in all its forms."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from pruning_agents.baselines import uniform
from pruning_agents.cli.main import main
from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.replay import replay
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.search.rows import Provenance, ResultRow
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks.storage import load_pruned, read_recipe

INNER = ["layer1.0.conv1", "layer2.0.conv1", "layer3.0.conv1"]


def make(**arguments: Any) -> CNNPruneEnv:
    return CNNPruneEnv(val_images=40, recovery_images=40, importance_images=40, **arguments)


def test_actions_and_observations_have_only_those_groups() -> None:
    env = make(groups="inner")
    assert env.action_space.shape == (3,)
    rows = [name.partition("/")[0] for name in env.observation_names if "/" in name]
    assert list(dict.fromkeys(rows)) == [*INNER, "over_budget"]
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    observation, *_ = env.step(np.ones(3, np.float32))
    assert env.observation_space.contains(observation)


def test_budgets_count_the_whole_network() -> None:
    env, whole = make(groups="inner", budget={"params": 0.6}), make(budget={"params": 0.6})
    env.reset()
    while not env.step(np.zeros(3, np.float32))[2]:
        pass
    state = env.state()
    keep = env.graph.whole_keep(state.keep)
    assert state.params == whole.graph.params(keep) / whole.graph.params(whole.graph.full())
    assert state.usage == (state.params,) and state.params <= 0.6
    assert whole.graph.counts(keep)[[0, 3, 5]].tolist() == [16, 32, 64]  # the sums stay
    report = env.report()
    assert report.params == state.params and report.feasible


def test_a_ratio_of_filters_is_to_all_that_are_removable() -> None:
    env = make(groups="inner", budget={"filters": 0.9}, action="ratio", max_steps=1)
    env.reset()
    _, _, _, _, info = env.step(np.ones(3, np.float32))
    assert 0.5 < env.state().usage[0] < 1.0  # those of the sums are still there
    assert info["exhausted"]


@pytest.mark.parametrize("groups", ["inner", ["!*.conv1", "!conv1"], ["layer3.*"]])
def test_vectorized_pickled_and_forked_environments_agree(groups: Any) -> None:
    env = make(groups=groups)
    envs = gym.make_vec(
        "CNNPrune-v0",
        num_envs=2,
        val_images=40,
        recovery_images=40,
        importance_images=40,
        groups=groups,
    )
    assert envs.single_action_space == env.action_space
    env.reset()
    envs.reset()
    action = np.linspace(-1, 1, len(env.graph.groups), dtype=np.float32)
    observation, reward, *_ = env.step(action)
    observations, rewards, *_ = envs.step(np.stack([action, action]))
    np.testing.assert_array_equal(observations[1], observation)
    assert rewards.tolist() == [reward, reward]
    copied, forked = pickle.loads(pickle.dumps(env)), env.fork()
    for twin in (copied, forked):
        assert twin.state() == env.state()
        np.testing.assert_array_equal(twin.step(action)[0], env.fork().step(action)[0])


def test_states_of_other_groups_are_refused() -> None:
    env, other = make(groups="inner"), make()
    other.reset()
    with pytest.raises(ValueError, match="state is of another network"):
        env.restore(other.state())


def test_a_layer_at_a_time_is_a_layer_that_there_is() -> None:
    env = make(groups="inner", action="layerwise", max_steps=3, constraint="wall")
    env.reset()
    steps = [env.step(np.zeros(1, np.float32))[2] for _ in range(3)]
    assert steps == [False, False, True]


def test_an_unknown_name_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(ValueError, match="groups='outer' is not allowed"):
        CNNPruneEnv(groups="outer", weights="no such file")
    with pytest.raises(ValueError, match="groups='outer' is not allowed"):
        CNNPruneTabularEnv(groups="outer")


# The solved tier


@pytest.mark.parametrize("groups", ["inner", ["layer2.*"]])
def test_the_table_answers_what_the_network_does(groups: Any) -> None:
    table = CNNPruneTabularEnv(groups=groups)
    real = CNNPruneEnv(groups=groups, round_to=5)
    assert table.observation_names == real.observation_names
    rng = np.random.default_rng(1)
    table.reset()
    real.reset()
    for _ in range(4):
        action = rng.uniform(-1, 1, real.action_space.shape)
        one, other = table.step(action), real.step(action)
        np.testing.assert_allclose(one[0], other[0], atol=1e-6)
        assert one[1] == other[1] and one[4]["params"] == other[4]["params"]


def test_the_optimum_is_that_of_the_groups_that_are_pruned() -> None:
    inner, every = (CNNPruneTabularEnv(groups=g, budget={"params": 0.5}) for g in ("inner", "all"))
    best = inner.optimum()
    assert len(best.counts) == 3 and inner.table.size == 364
    assert best.accuracy <= every.optimum().accuracy
    counts = every.graph.sizes.copy()
    counts[[1, 2, 4]] = best.counts
    place = int(every.table.index(counts))
    assert every.process.evaluator.accuracy[place] == best.accuracy
    assert every.table.params[place] == round(best.params * every.table.params[-1])


def test_an_episode_on_the_table_is_pickled_with_its_groups() -> None:
    env = CNNPruneTabularEnv(groups="inner")
    env.reset()
    env.step(np.zeros(3))
    twin = pickle.loads(pickle.dumps(env))
    assert twin.state() == env.state() and twin.table.size == 364
    envs = gym.make_vec("CNNPruneTabular-v0", num_envs=3, groups="inner")
    envs.reset()
    observations, *_ = envs.step(np.zeros((3, 3), np.float32))
    np.testing.assert_array_equal(observations[2], env.process.observe(env._places[-1]))


# Searches, rows and files


def test_a_baseline_leaves_the_other_groups_alone() -> None:
    env = make(groups="inner", budget={"params": 0.6})
    result = uniform(env)
    assert result is not None and result.state.counts.shape == (3,)


@pytest.mark.parametrize("task", ["tabular", "digits-resnet8"])
def test_rows_replay(task: str) -> None:
    settings = {"budget": {"params": 0.6}, "groups": ["!conv1", "!*.conv2"]}
    origin = Provenance("typed", "now", {"python": "3"}, "a machine", None)
    row = run_cell(Cell(task, settings, "random-search", 0, 4), origin)
    assert not row.failed and row.counts is not None and len(row.counts) == 3
    (verdict,) = replay([AgentRow.from_json(row.to_json())])
    assert verdict.replays, verdict.problems


@pytest.mark.parametrize("env", ["CNNPrune-v0", "CNNPruneTabular-v0"])
def test_the_command_line_prunes_these_groups_and_saves_the_network(
    tmp_path: Path, env: str
) -> None:
    out = tmp_path / "run"
    chosen = ["--env", env, "--groups", "layer*.conv1,!layer2.*", "--budget", "params=0.7"]
    assert main(["prune", *chosen, "--out", str(out)]) == 0
    row = ResultRow.from_json((out / "result.json").read_text())
    assert row.groups == ("layer1.0.conv1", "layer3.0.conv1")
    assert row.settings["groups"] == ["layer*.conv1", "!layer2.*"]
    model = load_pruned(out / "pruned")
    assert sum(each.numel() for each in model.parameters()) == row.params
    assert read_recipe(out / "pruned").counts["layer2.0.conv1"] == 32
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 10)


def test_the_command_line_refuses_groups_that_say_nothing(capsys: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["prune", "--groups", ",", "--out", str(tmp_path / "run")])
    assert "groups=['', ''] is not allowed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["prune", "--groups", "nowhere.*", "--out", str(tmp_path / "run")])
    assert "matches none of conv1" in capsys.readouterr().err
