"""RL Baselines3 Zoo trains on the environments by the settings of `cnnprune train`."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3 import PPO

from pruning_agents.stock.rl_zoo.conversion import hyperparams
from pruning_agents.stock.sb3_agents import stock_agents
from tests.helpers.paths import ROOT

FOLDER = ROOT / "agents" / "pruning_agents" / "stock"
NAMES = sorted(agent.name for agent in stock_agents() if not agent.constrained)


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_are_those_of_the_file(name: str) -> None:
    file = yaml.safe_load((FOLDER / "hyperparameters" / f"{name}.yaml").read_text())
    module = importlib.import_module(f"pruning_agents.stock.rl_zoo.{name}")
    assert set(module.hyperparams) == {id for id in gym.registry if id.startswith("CNNPrune")}
    for env_id, found in module.hyperparams.items():
        task = "digits-resnet8" if env_id == "CNNPrune-v0" else env_id
        short = file.get("one_step") if env_id == "CNNPruneWorlds-v0" else None
        expected = {**file["defaults"], **(short or {}), **(file["tasks"].get(task) or {})}
        noise = expected.pop("action_noise_std", None)
        if noise is not None:
            expected |= {"noise_type": "normal", "noise_std": noise}
        scale = expected.pop("reward_scale", None)
        if scale is not None:
            expected["env_wrapper"] = [
                {"pruning_agents.stock.scaling.ScaledReward": {"scale": scale}}
            ]
        assert found == {"n_timesteps": 2_000, "policy": "MlpPolicy", **expected}


def test_there_is_a_module_for_every_file_of_an_algorithm_that_the_zoo_has() -> None:
    files = {path.stem for path in (FOLDER / "hyperparameters").glob("*.yaml")}
    modules = {path.stem for path in (FOLDER / "rl_zoo").glob("*.py")}
    assert modules - {"__init__", "conversion"} == files - {"ppo-lagrangian"}


def test_an_unknown_agent_is_refused() -> None:
    with pytest.raises(ValueError, match="agent='dqn' is unknown; allowed: ppo, "):
        hyperparams("dqn")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("rl_zoo3") is None, reason="rl_zoo3 is not installed")
@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_the_command_trains(algorithm: str, tmp_path: Path) -> None:
    command = [
        *("-m", "rl_zoo3.train", "--algo", algorithm, "--env", "CNNPruneTabular-v0"),
        *(
            "--gym-packages",
            "pruning_env",
            "--conf-file",
            f"pruning_agents.stock.rl_zoo.{algorithm}",
        ),
        *("-n", "200", "--log-folder", str(tmp_path), "--seed", "1", "--eval-freq", "-1"),
    ]
    result = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        },
    )
    assert result.returncode == 0, result.stdout + result.stderr
    folder = tmp_path / algorithm / "CNNPruneTabular-v0_1"
    said = yaml.unsafe_load((folder / "CNNPruneTabular-v0" / "config.yml").read_text())
    assert dict(said)["policy"] == "MlpPolicy"
    assert (
        dict(said)["policy_kwargs"] == hyperparams(algorithm)["CNNPruneTabular-v0"]["policy_kwargs"]
    )
    saved = folder / "CNNPruneTabular-v0.zip"
    assert saved.exists()
    if algorithm == "ppo":
        agent = PPO.load(saved)
        assert agent.num_timesteps >= 200 and agent.n_steps == 64
        env = gym.make("CNNPruneTabular-v0")
        action, _ = agent.predict(env.reset(seed=0)[0], deterministic=True)
        assert env.action_space.contains(np.asarray(action, np.float32))
