"""RL Baselines3 Zoo's upload of an agent of ours, as far as it goes without a network.

The calls that would go to the Hugging Face Hub are replaced; the card, the configuration and the
video are made.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import imageio_ffmpeg
from huggingface_hub import HfApi

from benchmarks.clients.scripts.short import ENV_ID, QUICK

TRAIN = [
    *("train", "--algo", "ppo", "--env", ENV_ID, "-n", "128"),
    *("--gym-packages", "pruning_env", "--conf-file", "pruning_agents.stock.rl_zoo.ppo"),
    *("--eval-freq", "-1", "-f", "hub-logs", "--device", "cpu"),
]
if QUICK:
    TRAIN += ["--env-kwargs", *(f"{name}:{json.dumps(value)}" for name, value in QUICK.items())]
PUSH = ["push_to_hub", "--algo", "ppo", "--env", ENV_ID, "-f", "hub-logs", "-n", "20"]


def snapshot(api: HfApi, *, local_dir: Path, **_: Any) -> None:
    """An empty repository."""
    Path(local_dir).mkdir(parents=True, exist_ok=True)


def provide_ffmpeg() -> None:
    """The Zoo calls it by name to encode the video; moviepy brings one under another."""
    if shutil.which("ffmpeg") is None:
        Path("bin").mkdir(exist_ok=True)
        Path("bin/ffmpeg").unlink(missing_ok=True)
        Path("bin/ffmpeg").symlink_to(imageio_ffmpeg.get_ffmpeg_exe())
        os.environ["PATH"] = f"{Path('bin').resolve()}{os.pathsep}{os.environ['PATH']}"


def main() -> Path:
    """Train, and make what would be uploaded; return its folder."""
    provide_ffmpeg()
    with mock.patch.object(sys, "argv", TRAIN):
        runpy.run_module("rl_zoo3.train", run_name="__main__")
    uploaded: list[Path] = []
    with (
        mock.patch.object(HfApi, "create_repo", lambda *_, **__: "a repository"),
        mock.patch.object(HfApi, "snapshot_download", snapshot),
        mock.patch.object(
            HfApi, "upload_folder", lambda *_, folder_path, **__: uploaded.append(folder_path)
        ),
        mock.patch.object(sys, "argv", [*PUSH, "-orga", "nobody", "--device", "cpu"]),
    ):
        runpy.run_module("rl_zoo3.push_to_hub", run_name="__main__")
    (folder,) = uploaded
    card = (folder / "README.md").read_text()
    assert ENV_ID in card and "mean_reward" in card
    for name in ("args.yml", "config.yml", "env_kwargs.yml", "replay.mp4", "results.json"):
        assert (folder / name).stat().st_size > 0, name
    return folder


if __name__ == "__main__":
    print(*sorted(path.name for path in main().iterdir()), sep="\n")
