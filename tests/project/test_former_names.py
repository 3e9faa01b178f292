"""Files and imports from the time when all modules lay in one folder, and `agents` was our name.

`tests/fixtures/before_rooms` was written by `cnnprune train` of commit 073fc28 on the solved tier.
"""

from __future__ import annotations

import importlib
import shutil
import sys
import types
from pathlib import Path

import gymnasium as gym
import pytest

import pruning_env
from pruning_agents.cli.main import main
from pruning_agents.comparison.rows import read_rows
from pruning_agents.former_names import former_names, present_name
from pruning_agents.search.import_path import resolve_agent
from pruning_env.former_names import FORMER_NAMES
from tests.helpers.paths import ROOT

BEFORE = ROOT / "tests" / "fixtures" / "before_rooms"
ENVIRONMENT = [
    *("--env", "CNNPruneTabular-v0", "--budget", "params=0.25"),
    *("--constraint", "project", "--max-steps", "1"),
]


@pytest.mark.parametrize("name", FORMER_NAMES)
def test_a_module_is_found_by_its_former_name_and_is_the_same(name: str) -> None:
    former = importlib.import_module(f"pruning_env.{name}")
    assert former is importlib.import_module(f"pruning_env.{FORMER_NAMES[name]}")


def test_what_the_module_tasks_had_the_package_has() -> None:
    from pruning_env.tasks import Task, get_task, imagefolder_task, register_task

    assert Task is pruning_env.Task and register_task is pruning_env.register_task
    assert imagefolder_task is pruning_env.imagefolder_task and callable(get_task)
    with pytest.raises(ImportError):
        from pruning_env.tasks import nothing  # type: ignore[attr-defined]  # noqa: F401


def test_an_environment_is_made_from_a_spec_with_its_former_entry_point() -> None:
    entry_points = {
        "pruning_env.env:CNNPruneEnv": "CNNPrune-v0",
        "pruning_env.tabular.env:CNNPruneTabularEnv": "CNNPruneTabular-v0",
    }
    for entry_point, env_id in entry_points.items():
        spec = gym.envs.registration.EnvSpec("Former-v0", entry_point=entry_point)
        assert type(gym.make(spec).unwrapped) is type(gym.make(env_id).unwrapped)


def test_a_saved_network_is_read() -> None:
    model = pruning_env.load_pruned(BEFORE / "run" / "pruned")
    assert sum(parameter.numel() for parameter in model.parameters()) == 19_035


def test_a_saved_agent_prunes(tmp_path: Path) -> None:
    agent = str(BEFORE / "run" / "agent.zip")
    assert main(["prune", "--agent", agent, *ENVIRONMENT, "--out", str(tmp_path)]) == 0


def test_an_interrupted_run_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(BEFORE / "interrupted", tmp_path / "run")
    command = ["train", "--agent", "rl-pruner", "--evaluations", "30", "--no-progress", "--resume"]
    assert main([*command, *ENVIRONMENT, "--out", str(tmp_path / "run")]) == 0
    assert "rl-pruner, 30 of 30 evaluations" in capsys.readouterr().out
    assert not (tmp_path / "run" / "checkpoint.zip").exists()


def test_an_agent_is_found_by_its_former_import_path() -> None:
    assert resolve_agent("agents.baselines:uniform").name == "agents.baselines:uniform"
    assert present_name("agents.spending") == "pruning_agents.search.budgeted_search"
    assert present_name("agents.of_somebody_else") == "agents.of_somebody_else"


def test_a_package_agents_of_somebody_else_is_as_it_was_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    theirs = types.ModuleType("agents")
    monkeypatch.setitem(sys.modules, "agents", theirs)
    with former_names():
        found = importlib.import_module("agents.result")
        assert found is importlib.import_module("pruning_agents.search.result")
    assert sys.modules["agents"] is theirs and "agents.result" not in sys.modules


@pytest.mark.parametrize("file", ["agents-tabular", "agents-digits", "agents-cifar10"])
def test_committed_rows_are_read(file: str) -> None:
    assert len(read_rows(ROOT / "benchmarks" / "results" / f"{file}.jsonl")) > 10
