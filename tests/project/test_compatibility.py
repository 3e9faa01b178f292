"""Beyond this process: specs as JSON, workers however they start, and the built package."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.vector import AsyncVectorEnv
from stable_baselines3.common.vec_env import SubprocVecEnv

import pruning_env
from pruning_env.tabular.env import CNNPruneTabularEnv
from tests.helpers.paths import ROOT

IDS = tuple(name for name in gym.registry if name.startswith("CNNPrune"))

#: For every argument another value than its default, of those that JSON knows.
OTHER: dict[str, Any] = {
    "task": "digits-resnet8",
    "weights": str(
        Path(pruning_env.__file__).parent / "tasks/models/weights/digits-resnet8.safetensors"
    ),
    "data_root": "somewhere",
    "budget": {"params": 0.5, "macs": 0.6},
    "action": "ratio",
    "logit_scale": 2.0,
    "channels_per_step": 0.2,
    "filters_per_step": None,  # not with such an action
    "max_steps": 6,
    "round_to": 5,
    "groups": ["layer*.conv1", "!layer1.*"],
    "reward": "rl_pruner",
    "reward_arguments": {"alpha": 0.25},
    "reward_scale": 0.5,
    "observation": "dict",
    "importance": "l1",
    "importance_images": 32,
    "rank_every": 2,
    "sensitivity": "probe",
    "sensitivity_every": 2,
    "recovery": "none",
    "recover_when": "candidate",  # as the only one with this recovery
    "recover_every": 2,
    "recovery_images": 64,
    "finetune_steps": 3,
    "finetune_lr": 0.01,
    "finetune_arguments": {"epochs": 1},
    "val_images": 100,
    "race": 0.25,
    "constraint": "wall",
    "latency_arguments": {"batch": 2},
    "device": "cpu",
    "strategy": "masked",
    "precision": "bfloat16",
    "render_mode": "ansi",
    "pool": "test",
    "networks": [0],
    "rows": 50,
}


#: The table knows one kind of each.
ONLY = {
    "action": "distribution",
    "observation": "flat",
    "rank_every": None,
    "sensitivity_every": None,
}


def others(name: str) -> dict[str, Any]:
    entry_point = gym.spec(name).entry_point
    assert entry_point is not None
    creator = load_env_creator(entry_point) if isinstance(entry_point, str) else entry_point
    allowed = OTHER | (ONLY if "Tabular" in name else {})
    parameters = inspect.signature(creator).parameters.values()
    # A new argument without another value is an error here.
    return {
        parameter.name: allowed[parameter.name]
        for parameter in parameters
        if parameter.kind is not parameter.VAR_KEYWORD  # other environments' arguments
    }


def told(env: gym.Env) -> list[str]:
    """What three steps from a reset give."""
    observation, info = env.reset(seed=3)
    lines = [repr((observation, info))]
    actions = np.random.default_rng(0)
    for _ in range(3):
        action = actions.uniform(0, 1, env.action_space.shape or ()).astype(np.float32)
        *rest, terminated, truncated, info = env.step(action)
        lines.append(repr((rest, terminated, truncated, info)))
        if terminated or truncated:
            break
    return lines


@pytest.mark.parametrize("name", IDS)
def test_a_spec_with_every_argument_survives_json(name: str) -> None:
    env = gym.make(name, disable_env_checker=True, **others(name))
    assert env.spec is not None
    text = env.spec.to_json()
    spec = EnvSpec.from_json(text)
    assert spec.kwargs == others(name) == json.loads(text)["kwargs"]
    again = gym.make(spec)
    assert again.spec is not None and again.spec.to_json() == text
    assert told(env) == told(again)


@pytest.mark.parametrize("name", IDS)
def test_a_pickle_taken_in_mid_episode_goes_on_alike(name: str) -> None:
    longer: dict[str, Any] = (
        {"max_steps": 6} if "Worlds" in name else {}
    )  # episodes of one step have no middle
    env = gym.make(name, disable_env_checker=True, budget={"params": 0.2}, **longer)
    env.reset(seed=0)
    action = np.full(env.action_space.shape or (), 0.3, np.float32)
    env.step(action)
    twin: gym.Env = pickle.loads(pickle.dumps(env))
    for _ in range(2):
        assert repr(env.step(action)) == repr(twin.step(action))


def make_tabular() -> gym.Env:
    return gym.make("pruning_env:CNNPruneTabular-v0", budget={"params": 0.5})


@pytest.mark.slow
@pytest.mark.parametrize("start", ["spawn", "forkserver"])
def test_workers_of_gymnasium_and_stable_baselines_step_as_one_process_does(start: str) -> None:
    alone = make_tabular()
    action = np.full(alone.action_space.shape or (), 0.3, np.float32)
    expected = [alone.reset(seed=4)[0], alone.step(action)[0]]
    assert isinstance(alone.unwrapped, CNNPruneTabularEnv)

    envs = AsyncVectorEnv([make_tabular] * 2, context=start)
    try:
        found = [envs.reset(seed=[4, 5])[0], envs.step(np.stack([action] * 2))[0]]
    finally:
        envs.close()
    for each, other in zip(expected, found, strict=True):
        assert np.array_equal(np.asarray(other)[0], each)

    workers = SubprocVecEnv([make_tabular] * 2, start_method=start)
    try:
        first = workers.reset()
        second = workers.step(np.stack([action] * 2))[0]
    finally:
        workers.close()
    for each, stacked in zip(expected, (first, second), strict=True):
        assert np.array_equal(np.asarray(stacked)[0], each)


USE = """
import sys
from pathlib import Path
import gymnasium as gym
import pruning_agents.cli.main, pruning_env
for module in (pruning_env, pruning_agents.cli.main):
    assert {folder!r} in module.__file__, module.__file__
for name in ("CNNPrune-v0", "CNNPruneTabular-v0"):
    env = gym.make(name, budget={{"params": 0.9}})
    env.reset(seed=0)
    env.step(env.action_space.sample())
main, COMMANDS = pruning_agents.cli.main.main, pruning_agents.cli.main.COMMANDS
for command in COMMANDS:
    try:
        main([command, "--help"])
    except SystemExit as end:
        assert end.code == 0, command
for command in ("tasks", "agents"):
    assert main([command]) == 0
short = ["--evaluations", "5", "--no-progress", "--env", "CNNPruneTabular-v0"]
assert main(["train", "--agent", "rl-pruner", *short, "--out", "found"]) == 0
rows = str(Path({rows!r}).with_name("agents-tabular.jsonl"))
assert main(["compare", rows, rows, "--agents", "rl-pruner,random-search"]) == 0
assert main(["validate", {rows!r}]) == 0
{readme}
"""

BOTH = """
import agents, pruning_agents, pruning_env
assert hasattr(agents, "Runner") and not hasattr(agents, "RLPruner"), agents.__file__
assert pruning_agents.RLPruner.__module__.startswith("pruning_agents.")
"""


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_is_needed_and_run_in_an_environment_of_their_own(
    tmp_path: Path,
) -> None:
    """Third parties are this environment's; the package comes from the wheel alone."""
    # The source distribution first, and the wheel out of it: as users without a wheel get it.
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
        cwd=tmp_path,
    )
    (wheel,), (sdist,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "pruning_env",
        "pruning_agents",
    }
    assert {
        "pruning_env/py.typed",
        "pruning_agents/py.typed",
        "pruning_env/tabular/digits-resnet8.npz",
        "pruning_env/tasks/models/weights/digits-resnet8.safetensors",
        "pruning_agents/stock/hyperparameters/ppo.yaml",
    } <= names
    suffixes = {Path(name).suffix for name in names if not name.split("/")[0].endswith("-info")}
    assert suffixes <= {".py", ".typed", ".npz", ".safetensors", ".yaml", ".json", ".jsonl"}
    assert wheel.stat().st_size < 10e6
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "pruning_env/py.typed"} <= source
    assert not [name for name in source if name.split("/")[0] in (".ci", ".venv", "runs", ".cache")]

    place = tmp_path / "venv"
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(packages)
    here = [path for path in sys.path if path.endswith("site-packages")]
    # Folders of a .pth file are searched, but no .pth files in them: an editable install of this
    # project stays out.
    (packages / "third_parties.pth").write_text("\n".join(here) + "\n")
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    rows = tmp_path / "few.jsonl"
    committed = ROOT / "benchmarks" / "results" / "agents-tabular.jsonl"
    shutil.copy(committed, tmp_path)
    found = [row for row in committed.read_text().splitlines(True) if '"rl-pruner"' in row]
    rows.write_text("".join(found[:3]))
    (ten_lines,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
        if "pruned_model()" in block
    )

    def run(code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(place / "bin" / "python"), "-c", code],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=variables,
            check=False,
        )

    result = run(USE.format(folder=str(packages), rows=str(rows), readme=ten_lines))
    assert result.returncode == 0, result.stderr
    assert "digits-resnet8" in result.stdout and "3 of 3 rows replay" in result.stdout
    assert (tmp_path / "found" / "result.json").is_file()

    # Beside the widely installed package that has the import name `agents`.
    theirs = tmp_path / "theirs"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(theirs)]
    installed = subprocess.run([*command, "openai-agents"], capture_output=True, check=False)
    if installed.returncode:
        pytest.skip("openai-agents cannot be installed here")
    with (packages / "third_parties.pth").open("a") as paths:
        paths.write(f"{theirs}\n")
    result = run(BOTH)
    assert result.returncode == 0, result.stderr
