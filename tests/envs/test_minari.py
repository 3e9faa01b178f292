"""Trajectories as a Minari data set: recorded, loaded, and the environment recovered from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import pruning_env  # noqa: F401  (registers the environments)

minari: Any = pytest.importorskip("minari", exc_type=ImportError)
for _needed in ("h5py", "jax"):  # of its extras hdf5 and create, which do the recording
    pytest.importorskip(_needed, exc_type=ImportError)

SETTINGS: dict[str, Any] = {"budget": {"params": 0.5}, "channels_per_step": 0.1}


@pytest.mark.parametrize("observation", ["flat", "dict"])
def test_a_recorded_data_set_is_what_happened(
    observation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = gym.make("CNNPrune-v0", observation=observation, val_images=50, **SETTINGS)
    recorder = minari.DataCollector(env, record_infos=True)
    happened: list[tuple[np.ndarray, float, float]] = []
    for episode in range(3):
        recorder.action_space.seed(episode)
        recorder.reset(seed=episode)
        ended = False
        while not ended:
            action = recorder.action_space.sample()
            _, reward, ended, truncated, info = recorder.step(action)
            assert not truncated
            happened.append((action, float(reward), info["accuracy"]))
    made = recorder.create_dataset(
        "cnnprune/digits/random-v0",
        algorithm_name="random",
        eval_env=env.spec,
        description="random actions",
        author="somebody",
        author_email="somebody@example.org",
        code_permalink="https://example.org",
    )
    recorder.close()
    assert made.total_episodes == 3 and made.total_steps == len(happened)

    dataset = minari.load_dataset("cnnprune/digits/random-v0")
    episodes = list(dataset.iterate_episodes())
    assert np.array_equal(
        np.concatenate([each.actions for each in episodes]), [action for action, *_ in happened]
    )
    rewards = np.concatenate([each.rewards for each in episodes])
    assert rewards.tolist() == [reward for _, reward, _ in happened]
    accuracies = np.concatenate([each.infos["accuracy"][1:] for each in episodes])
    assert accuracies.tolist() == [accuracy for *_, accuracy in happened]

    again = dataset.recover_environment()
    assert again.spec.kwargs == env.spec.kwargs  # type: ignore[union-attr]
    for number, episode in enumerate(episodes):
        again.reset(seed=number)
        replayed = [again.step(action)[1] for action in episode.actions]
        assert replayed == episode.rewards.tolist()
