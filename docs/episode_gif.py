"""A moving picture of one episode: what `render_mode="rgb_array"` shows, frame by frame.

`python -m docs.episode_gif` writes the one of the README. `RLPruner` searches a pruning of the
digits network, and the episode that leads to the best it has found is recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import RenderCollection
from numpy.typing import NDArray
from PIL import Image

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents import RLPruner

_DEFAULT = Path(__file__).parent / "pictures" / "episode.gif"
_COLOURS = 24  # of the palette; bars, lines and grey text need no more
_NEARLY_WHITE = 240  # lighter than the bars of what is removed
_LAST_FRAME = 4  # times as long as the others [frames]


def record(evaluations: int, seed: int) -> list[NDArray[np.uint8]]:
    """Frames (H, W, 3) of the episode that leads to the best pruning found, the first at reset."""
    env = gym.make("CNNPruneTabular-v0", render_mode="rgb_array")
    agent = RLPruner("DistributionPolicy", env, seed=seed).learn(evaluations)
    assert agent.incumbent is not None
    action = agent.incumbent.state.last_action  # candidates keep one action to the end
    recorded = RenderCollection(gym.make("CNNPruneTabular-v0", render_mode="rgb_array"))
    recorded.reset(seed=seed)
    terminated = False
    while not terminated:
        *_, terminated, _, _ = recorded.step(action)
    return recorded.render()  # type: ignore[return-value]


def save(frames: Sequence[NDArray[np.uint8]], path: Path, frame_rate: float) -> None:
    """Write frames as a GIF that repeats for ever."""
    palette = _palette(frames[-1])  # one for all, or colours flicker
    images = [
        Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    ]
    duration = round(1000 / frame_rate)  # milliseconds
    durations = [duration] * (len(images) - 1) + [_LAST_FRAME * duration]
    images[0].save(
        path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )


def _palette(frame: NDArray[np.uint8]) -> Image.Image:
    """The colours of a frame, of which those that are nearly white are made so, like the paper."""
    image = Image.fromarray(frame).quantize(_COLOURS)
    colours = np.array(image.getpalette()).reshape(-1, 3)
    colours[colours.min(1) > _NEARLY_WHITE] = 255
    image.putpalette(colours.flatten().tolist())
    return image


def main(arguments: Sequence[str] | None = None) -> None:
    """Record and write."""
    parser = argparse.ArgumentParser(description="Record an episode as a moving picture.")
    parser.add_argument("--evaluations", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--frame-rate", type=float, default=2.0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=_DEFAULT, help="default: %(default)s")
    options = parser.parse_args(arguments)
    save(record(options.evaluations, options.seed), options.out, options.frame_rate)


if __name__ == "__main__":
    main()
