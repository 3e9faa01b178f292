"""`cnnprune profile`: the parts of a step, and that looking at them changes nothing."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from pruning_agents.cli.main import main
from pruning_agents.cli.profile import profile
from pruning_env.envs.cnn_prune import CNNPruneEnv


def test_the_parts_add_up_and_the_forward_passes_are_among_them() -> None:
    env = gym.make("CNNPrune-v0").unwrapped
    assert isinstance(env, CNNPruneEnv)
    parts = {part.name: part.seconds for part in profile(env, 2)}
    assert {"slice", "recover", "forward", "choose channels", "reward", "observe"} < parts.keys()
    assert all(seconds >= 0 for seconds in parts.values())
    assert parts["forward"] > parts["reward"]
    assert parts["recover"] > parts["observe"]


def test_a_profiled_environment_goes_on_as_if_nothing_had_been() -> None:
    looked, other = (gym.make("CNNPrune-v0").unwrapped for _ in range(2))
    assert isinstance(looked, CNNPruneEnv)
    profile(looked, 1)
    action = np.zeros(other.action_space.shape or (), dtype=np.float32)
    for env in (looked, other):
        env.reset(seed=0)
    ours, theirs = looked.step(action), other.step(action)
    assert np.array_equal(ours[0], theirs[0])
    assert ours[1:] == theirs[1:]


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "--steps", "1"]) == 0
    shown = capsys.readouterr().out
    assert "ms per step" in shown
    assert "recover" in shown


@pytest.mark.parametrize("bad", [["--steps", "0"], ["--device", "nowhere"]])
def test_bad_input_ends_with_exit_code_2(bad: list[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["profile", *bad])
    assert end.value.code == 2
