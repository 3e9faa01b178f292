"""Plug-ins: what other packages register is there by name once they are installed."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pruning_env.evaluation.importance import scores as importance
from pruning_env.evaluation.importance.scores import importance_kinds
from pruning_env.plugins import GROUP, load_plugins
from pruning_env.process import budgets, rewards
from pruning_env.process.budgets import budget_names
from pruning_env.process.rewards import get_reward, reward_names
from pruning_env.tasks import registry as tasks
from pruning_env.tasks.registry import task_names
from tests.helpers.paths import ROOT

PACKAGE = ROOT / "tests" / "plugin"

REGISTRIES = ((tasks, "_TASKS"), (budgets, "_MEASURED"), (rewards, "_REWARDS"))

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a module with this source where installed packages are found, as a plug-in."""
    for module, name in (*REGISTRIES, (importance, "_KINDS")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)

    def add(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\nmy-{name} = {name}\n")
        importlib.invalidate_caches()
        load_plugins.cache_clear()

    yield add
    load_plugins.cache_clear()
    for name in set(sys.modules) - before:
        if name.startswith("plug_"):
            del sys.modules[name]


REWARD = """
from pruning_env import register_reward

@register_reward({name!r})
def nothing(outcome):
    return {{"nothing": 0.0}}
"""


def test_a_plugin_is_imported_when_a_name_is_first_looked_up_and_only_then(
    install: Install,
) -> None:
    install("plug_late", REWARD.format(name="late"))
    assert "plug_late" not in sys.modules and "late" not in rewards._REWARDS
    assert get_reward("late").function({}) == {"nothing": 0.0}  # type: ignore[arg-type]
    assert "plug_late" in sys.modules


@pytest.mark.parametrize("names", [task_names, budget_names, reward_names, importance_kinds])
def test_every_list_of_names_has_those_of_plugins(
    names: Callable[[], Any], install: Install
) -> None:
    before = set(names())
    source = (PACKAGE / "blobs" / "__init__.py").read_text()
    install("plug_blobs", source)
    assert set(names()) == before | {"blobs"}


def test_a_broken_plugin_is_named_and_breaks_nothing_else(install: Install) -> None:
    install("plug_broken", "raise RuntimeError('no such luck')")
    install("plug_taken", REWARD.format(name="final"))
    install("plug_whole", REWARD.format(name="whole"))
    with pytest.warns(RuntimeWarning) as caught:
        assert "whole" in reward_names()
    told = sorted(str(warning.message) for warning in caught)
    assert told == [
        "plug-in 'my-plug_broken' (plug_broken 1.5) is left out: importing 'plug_broken' raised "
        "RuntimeError: no such luck",
        "plug-in 'my-plug_taken' (plug_taken 1.5) is left out: importing 'plug_taken' raised "
        "ValueError: name='final' is already registered; choose another name",
    ]


USE = """
import sys
import gymnasium as gym
import pruning_env

assert "blobs" not in sys.modules, "importing the package must import no plug-in"
assert "torch" not in sys.modules
env = gym.make(
    "CNNPrune-v0",
    task="blobs",
    budget={"blobs": 0.6},
    reward="blobs",
    importance="blobs",
    action="ratio",
    max_steps=2,
)
blobs = sys.modules["blobs"]
assert sys.argv[1] in blobs.__file__, blobs.__file__
env.reset(seed=0)
_, reward, terminated, _, info = env.step(env.action_space.high)
assert terminated and info["is_success"] and info["reward_terms"] == {"blobs": reward, "unmet": 0.0}
twin = gym.make(env.spec.from_json(env.spec.to_json()))
twin.reset(seed=0)
assert twin.step(env.action_space.high)[1] == reward
assert env.unwrapped.report().accuracy >= 0.0

from pruning_agents.cli.main import main

assert main(["tasks"]) == 0
train = "train --agent random-search --task blobs --reward blobs --importance blobs --out found"
sys.exit(main([*train.split(), "--evaluations", "5", "--budget", "blobs=0.6"]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip has installed the package, and nothing else."""
    pytest.importorskip("setuptools", reason="builds the package")
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, folder / "source")  # building leaves folders behind
    target = folder / "installed"
    python(
        [
            *("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", str(target), str(folder / "source")),
        ],
        folder,
    )
    return target


@pytest.mark.slow
def test_a_separate_package_is_there_once_it_is_installed(installed: Path, tmp_path: Path) -> None:
    paths = os.pathsep.join((str(installed), str(ROOT)))
    said = python(["-c", USE, str(installed)], tmp_path, PYTHONPATH=paths)
    assert "blobs" in said and "where is the bright blob" in said
    assert (tmp_path / "found" / "result.json").exists()


@pytest.mark.slow
def test_a_separate_package_is_typed_as_strictly_as_its_author_may_wish(
    installed: Path, tmp_path: Path
) -> None:
    python(
        [
            *("-m", "mypy", "--strict", "--follow-imports=silent", "--cache-dir", os.devnull),
            str(installed / "blobs" / "__init__.py"),
        ],
        tmp_path,
        MYPYPATH=str(ROOT),
    )


def python(arguments: list[str], folder: Path, **variables: str) -> str:
    """What a fresh interpreter prints; it must end well."""
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **variables},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
