"""`cnnprune finetune`: what it learns and leaves, and that a killed run ends as a whole one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pruning_agents.cli.finetune import CHECKPOINT_FILE, ROW_FILE
from pruning_agents.cli.main import main
from pruning_env.tasks.storage import load_pruned, read_recipe

SETTINGS = ("--batch-size", "64", "--learning-rate", "0.02", "--no-progress")


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    """A network of a quarter of the parameters, not trained."""
    out = tmp_path_factory.mktemp("pruned") / "run"
    assert main(["prune", "--budget", "params=0.25", "--out", str(out)]) == 0
    return out


def finetune(source: Path, out: Path, *more: str) -> int:
    return main(["finetune", str(source), "--out", str(out), *SETTINGS, *more])


@pytest.fixture(scope="module")
def tuned(pruned, tmp_path_factory):
    out = tmp_path_factory.mktemp("tuned") / "run"
    more: tuple[str, ...] = ("--epochs", "3", "--test")
    if importlib.util.find_spec("tensorboard") is not None:
        more += ("--tensorboard", str(out.parent / "logs"))
    assert finetune(pruned, out, *more) == 0
    return out


def test_what_pruning_cost_comes_back_and_the_row_says_how(pruned, tuned):
    row = json.loads((tuned / ROW_FILE).read_text())
    assert row["val_accuracy"] > row["before_val"] + 0.1
    assert row["test_accuracy"] > 0.8 and row["dense_test_accuracy"] > 0.97
    assert 1 <= row["epoch"] <= 3 and row["params_ratio"] <= 0.25
    assert row["recipe"]["epochs"] == 3 and row["recipe"]["learning_rate"] == 0.02
    assert row["source_sha256"] == read_recipe(pruned / "pruned").weights_sha256
    assert row["provenance"]["command"].startswith("cnnprune finetune ")
    assert {path.name for path in tuned.iterdir()} == {"pruned", ROW_FILE}


def test_the_network_that_was_judged_is_the_one_on_disk(tuned, capsys):
    row = json.loads((tuned / ROW_FILE).read_text())
    assert sum(each.numel() for each in load_pruned(tuned / "pruned").parameters()) == row["params"]
    assert main(["evaluate", str(tuned), "--test"]) == 0
    said = capsys.readouterr().out
    assert f"{row['val_accuracy']:.2%}" in said and f"{row['test_accuracy']:.2%}" in said


def test_epochs_are_logged_for_tensorboard(tuned):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(tuned.parent / "logs")).Reload()
    assert [event.step for event in events.Scalars("search-val/accuracy")] == [1, 2, 3]


def test_without_test_it_stays_closed(pruned, tmp_path):
    assert finetune(pruned, tmp_path / "run", "--epochs", "1") == 0
    row = json.loads((tmp_path / "run" / ROW_FILE).read_text())
    assert row["test_accuracy"] is None and row["dense_test_accuracy"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "0"), "not a whole number of at least 1"),
        (("--batch-size", "1000000"), "search-train has only"),
        (("--distillation", "2"), "distillation=2.0: must be in"),
        (("--learning-rate", "1e30"), "training diverged"),
    ],
)
def test_bad_settings_are_named(arguments, message, pruned, tmp_path, capsys):
    command = ["finetune", str(pruned), "--out", str(tmp_path / "run"), "--no-progress"]
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--epochs", "1", *arguments])
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_nothing_on_disk_is_lost_by_mistake(pruned, tuned, tmp_path, capsys):
    def refused(out: Path, *more: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            finetune(pruned, out, "--epochs", "1", *more)
        assert stopped.value.code == 2
        return capsys.readouterr().err

    assert "already holds a result" in refused(tuned)
    for more in ((), ("--resume",), ("--force",)):
        assert "another command wrote" in refused(pruned, *more)
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    assert "was interrupted; give --resume" in refused(tmp_path)
    (tmp_path / "file").write_text("")
    assert "is a file" in refused(tmp_path / "file")


def test_a_killed_run_ends_as_a_whole_one(pruned, tmp_path):
    settings = ("--epochs", "4", "--seed", "3")
    assert finetune(pruned, tmp_path / "whole", *settings) == 0
    cut = tmp_path / "cut"
    command = [sys.executable, "-m", "pruning_agents", "finetune", str(pruned)]
    command += ["--out", str(cut), *SETTINGS, *settings]
    with subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        deadline = time.monotonic() + 120
        while not (cut / CHECKPOINT_FILE).exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (cut / ROW_FILE).exists()
    other = tmp_path / "other"
    shutil.copytree(cut, other)
    with pytest.raises(SystemExit):  # other settings would not end in the same network
        finetune(pruned, other, "--epochs", "4", "--seed", "4", "--resume")
    assert finetune(pruned, cut, *settings, "--resume") == 0
    ends = [load_pruned(out / "pruned").state_dict() for out in (tmp_path / "whole", cut)]
    assert all(torch.equal(tensor, ends[1][name]) for name, tensor in ends[0].items())
