"""Episodes as moving pictures: the GIF of the README, and Gymnasium's `RecordVideo`."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import RecordVideo
from PIL import Image

import pruning_env  # noqa: F401  (registers the environments)
from docs import episode_gif
from pruning_env.envs.rendering import FRAME_SHAPE
from tests.helpers.paths import ROOT

COMMITTED = ROOT / "docs" / "pictures" / "episode.gif"


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        frames = []
        for nth in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(nth)
            frames.append(np.asarray(image.convert("RGB")))
    return frames


def blue(frame: np.ndarray) -> int:
    """Pixels of bars for channels that are kept."""
    return int((np.abs(frame.astype(int) - (0x00, 0x72, 0xB2)).max(2) < 12).sum())


def test_the_gif_that_is_committed_shows_an_episode_and_is_small() -> None:
    assert COMMITTED.stat().st_size < 500_000
    frames = frames_of(COMMITTED)
    assert len(frames) > 5 and all(frame.shape == FRAME_SHAPE for frame in frames)
    kept = [blue(frame) for frame in frames]
    assert kept == sorted(kept, reverse=True) and 0 < kept[-1] < 0.8 * kept[0]
    assert all((frame[0] == 255).all() for frame in frames)  # paper is white


def test_the_script_writes_an_episode_that_ends_within_the_budget(tmp_path: Path) -> None:
    episode_gif.main(["--evaluations", "20", "--out", str(tmp_path / "few.gif")])
    frames = frames_of(tmp_path / "few.gif")
    assert len(frames) > 5 and blue(frames[-1]) < blue(frames[0])
    with Image.open(tmp_path / "few.gif") as image:
        assert image.info["duration"] == 500 and image.info["loop"] == 0


def test_record_video_writes_a_frame_for_every_state_of_an_episode(tmp_path: Path) -> None:
    moviepy = pytest.importorskip("moviepy", minversion="2")
    env = RecordVideo(
        gym.make("CNNPruneTabular-v0", channels_per_step=0.25, render_mode="rgb_array"),
        str(tmp_path),
        episode_trigger=lambda episode: True,
        disable_logger=True,
    )
    env.reset(seed=0)
    steps, terminated = 0, False
    while not terminated:
        *_, terminated, _, _ = env.step(np.zeros(6, np.float32))
        steps += 1
    assert len(env.recorded_frames) == steps + 1
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    with moviepy.VideoFileClip(str(video)) as clip:
        assert clip.size == [FRAME_SHAPE[1], FRAME_SHAPE[0]]
        assert clip.fps == env.metadata["render_fps"]
        assert round(clip.duration * clip.fps) == steps + 1
