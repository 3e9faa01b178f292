"""`python -m benchmarks train`: recipes of all tasks, and what the command leaves."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

import pytest

from benchmarks.__main__ import main
from benchmarks.training.recipes import RECIPES
from pruning_env.tasks.models import load_state_file
from pruning_env.tasks.registry import get_task, task_names
from tests.helpers.paths import ROOT


def test_every_recipe_is_of_a_task_and_every_task_without_weights_has_one():
    assert set(RECIPES) <= set(task_names())
    untrained = {name for name in task_names() if "benchmarks train" in get_task(name).summary}
    assert untrained == set(RECIPES)


def test_the_command_leaves_weights_and_a_row_that_names_them(tmp_path, capsys):
    out = tmp_path / "lenet.safetensors"
    command = ["train", "--task", "mnist-lenet5", "--smoke", "--out", str(out)]
    assert main(command) == 0
    row = json.loads(out.with_suffix(".json").read_text())
    assert row["weights_sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert row["task"] == "smoke-mnist-lenet5" and row["images"] == [32, 16, 16]
    assert row["provenance"]["command"].startswith("python -m benchmarks train --task mnist")
    load_state_file(get_task("mnist-lenet5").build(), out)
    assert {path.name for path in tmp_path.iterdir()} == {out.name, "lenet.json"}
    before = out.stat().st_mtime_ns
    assert main([*command, "--resume"]) == 0
    assert out.stat().st_mtime_ns == before and "is there already" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "nothing"], "task='nothing': unknown"),
        (["--task", "mnist-lenet5", "--out", "x.pt"], "must end in .safetensors"),
        (["--task", "mnist-lenet5", "--ema", "2"], "ema=2.0: must be in"),
        (["--task", "mnist-lenet5", "--data-root", "/nowhere"], "MNIST: no folder"),
    ],
)
def test_bad_input_to_the_command_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *arguments])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    out = tmp_path / "lenet.safetensors"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "-m", "benchmarks", "train", "--task", "mnist-lenet5"]
    command += ["--smoke", "--ema", "0.9", "--out", str(out)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=300)
    row = json.loads(out.with_suffix(".json").read_text())
    assert row["processes"] == 2
    load_state_file(get_task("mnist-lenet5").build(), out)
