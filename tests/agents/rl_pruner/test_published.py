"""RL-Pruner as its paper has it: environment and agent, and the command that runs both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pruning_env  # noqa: F401
from pruning_agents import RLPruner
from pruning_agents.cli.main import main
from pruning_agents.rl_pruner.published import REWARDS
from pruning_agents.search.registry import get_agent
from pruning_env.process.filters import filters_at
from pruning_env.tasks.storage import load_pruned
from tests.helpers.known_optimum import KnownOptimumEnv, trace_chain

#: The paper's environment in steps of a tenth, with little training.
SMALL: dict[str, Any] = {"filters_per_step": 0.1, "val_images": 40, "importance_images": 16}


@pytest.fixture(scope="module")
def graph():
    return trace_chain()


def published(env, seed=0, **changes):
    arguments = {**RLPruner.published(), **changes}
    return RLPruner("DistributionPolicy", env, seed=seed, **arguments)


def paper(sparsity=0.3, **rewards):
    return gym.make(
        "CNNPrune-v0", **{**RLPruner.published_env(sparsity, **rewards, epochs=1), **SMALL}
    )


def test_it_is_a_set_of_arguments(graph):
    agent = published(KnownOptimumEnv(graph)).learn(250)
    kept = {name: getattr(agent, name) for name in set(RLPruner.published()) - {"step_size"}}
    assert kept == {n: v for n, v in RLPruner.published().items() if n != "step_size"}
    assert agent.num_timesteps == 250


def test_a_step_is_one_percent_of_the_filters_and_the_budget_a_share_of_them():
    # Training and ranking anew take passes of the network for each of the steps.
    quick = {"recovery": "none", "recover_when": "candidate", "rank_every": None, "val_images": 20}
    env: Any = gym.make("CNNPrune-v0", **{**RLPruner.published_env(0.1), **quick}).unwrapped
    env.reset()
    assert [(b.name, b.limit) for b in env.dynamics.budgets] == [("filters", 0.9)]
    graph = env.graph
    whole, steps, over = int(filters_at(graph, graph.sizes)), 0, False
    before = whole
    while not over:
        _, _, over, _, info = env.step(env.action_space.sample())
        left = int(filters_at(graph, env.state().counts))
        assert abs(before - left - 0.01 * whole) <= 2
        before, steps = left, steps + 1
    assert info["is_success"] and 8 <= steps <= 13


@pytest.mark.parametrize("sparsity", [-0.1, 1.0])
def test_a_sparsity_outside_its_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=f"sparsity={sparsity}"):
        RLPruner.published_env(sparsity)


@pytest.mark.parametrize("reward", REWARDS)
def test_a_candidate_is_worth_the_papers_score(reward):
    env: Any = paper(**REWARDS[reward]).unwrapped
    dynamics = env.dynamics
    state = dynamics.transition(dynamics.initial(), np.zeros(6)).state
    weights = REWARDS[reward]
    score = state.latest.accuracy + weights["alpha"] * (1 - state.macs)
    score += weights["beta"] * (1 - state.params)
    assert dynamics.worth([state])[0] == pytest.approx(score - dynamics.evaluator.dense.accuracy)


def test_only_committed_networks_are_trained_and_the_best_of_them_is_the_incumbent(monkeypatch):
    env: Any = paper()
    tuner, trained = env.unwrapped.evaluator._tuner, []
    train = tuner.train

    def noting(*arguments, **keywords):
        trained.append(1)
        train(*arguments, **keywords)

    monkeypatch.setattr(tuner, "train", noting)
    agent = published(env, samples_per_epoch=2, epochs=2).learn(40)
    commits = agent.num_timesteps - 4 * (agent.num_timesteps // 5)
    assert 0 < len(trained) <= commits
    found = agent.incumbent
    assert found is not None and found.state.usage[0] <= 0.7
    assert found.state.weights is not None
    assert np.array_equal(found.state.weights.keep, found.state.keep)  # of its own training
    assert found.evaluations == env.unwrapped.evaluations <= 40


@pytest.mark.parametrize("seed", range(2))
def test_it_ends_in_a_feasible_network_however_early_it_stops(seed):
    agent = published(paper(0.4), seed, samples_per_epoch=3, epochs=2).learn(10)
    assert agent.num_timesteps == 10  # a step and a bit
    assert agent.incumbent is not None and agent.incumbent.state.usage[0] <= 0.6
    assert agent.incumbent.state.weights is not None  # trained, as every committed network


def test_a_fall_beyond_the_valve_resets_the_distribution_and_the_step_is_searched_anew(graph):
    def learn(reset_below):
        env = KnownOptimumEnv(graph, limit=0.3)
        agent = published(env, epochs=2, samples_per_epoch=2, reset_below=reset_below)
        # All from a group that costs 0.3 of accuracy when it is gone.
        agent.policy.distribution = np.array([0.97, 0.01, 0.01, 0.01])
        resets = []
        reset = agent.policy.reset

        def noting():
            resets.append(agent.num_timesteps)
            reset()

        agent.policy.reset = noting  # type: ignore[method-assign]
        agent.learn(6 if reset_below == 1.0 else 10)
        return agent, resets

    agent, resets = learn(0.01)
    assert resets == [4]  # once for the step, after its two epochs of two
    assert np.allclose(agent.distribution, 0.25, atol=0.05)
    agent, resets = learn(1.0)
    assert resets == [] and agent.distribution[0] > 0.8


def test_the_agent_of_the_paper_has_a_name_and_belongs_to_ours():
    recipe = get_agent("rl-pruner").published
    assert recipe is not None and recipe.agent == "rl-pruner-published"
    assert recipe.settings == RLPruner.published_env()
    learner = get_agent(recipe.agent).learner
    assert learner is not None
    made: Any = learner.make(gym.make("CNNPruneTabular-v0"), 0, None)
    assert made.noise == "absolute" and made.reset_below == 0.1


def test_one_command_runs_the_recipe(tmp_path: Path) -> None:
    command = ["train", "--agent", "rl-pruner", "--as-published", "--evaluations", "12"]
    command += ["--budget", "filters=0.7", "--no-progress", "--out", str(tmp_path / "run")]
    for name, value in {**SMALL, "finetune_arguments": {"epochs": 1, "warmup": 0}}.items():
        command += ["--set", f"{name}={json.dumps(value)}"]
    assert main(command) == 0
    row = json.loads((tmp_path / "run" / "result.json").read_text())
    assert row["agent"] == "rl-pruner-published" and row["budget"] == {"filters": 0.7}
    settings = row["settings"]
    assert settings["recover_when"] == "commit" and settings["rank_every"] == 1
    assert settings["finetune_arguments"]["epochs"] == 1
    assert settings["finetune_arguments"]["temperature"] == 2.0
    assert load_pruned(tmp_path / "run" / "pruned") is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--agent", "cem", "--as-published"], "cem"),
        (["--agent", "rl-pruner", "--set", "speed=1"], "speed"),
        (["--agent", "rl-pruner", "--set", "speed"], "NAME=VALUE"),
        (["--agent", "rl-pruner", "--as-published", "--env", "CNNPruneTabular-v0"], "recover_when"),
    ],
)
def test_what_cannot_be_done_is_said(arguments, reason, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments, "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2 and reason in capsys.readouterr().err
