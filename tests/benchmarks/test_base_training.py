"""`python -m benchmarks train`: what it learns from, that it goes on, and what it leaves."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.__main__ import main
from benchmarks.training.loop import Checkpoints, cutout, judge, train_base
from benchmarks.training.parallel import Processes
from benchmarks.training.recipes import RECIPES, BaseRecipe
from pruning_env.tasks.data import Split, Splits, load_digits8
from pruning_env.tasks.models import CifarResNet, load_state_file
from pruning_env.tasks.registry import get_task, task_names
from tests.helpers.paths import ROOT

ALONE = Processes(0, 1, "cpu")
RECIPE = BaseRecipe(epochs=4, batch_size=50, learning_rate=0.05, cutout=3, label_smoothing=0.1)


def digits(images: int = 1000) -> Splits:
    splits = load_digits8()
    return dataclasses.replace(splits, search_train=splits.search_train.evenly_spaced(images))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CifarResNet(8, in_channels=1, shortcut="B", widths=(4, 8, 16))


def trained(splits: Splits, recipe: BaseRecipe, path: Path, **options: bool) -> nn.Module:
    kept = Checkpoints(path, every=2, **options)
    return train_base(network(), splits, recipe, team=ALONE, checkpoints=kept)


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_network_learns_the_digits(tmp_path):
    splits, recipe = digits(), dataclasses.replace(RECIPE, epochs=12, cutout=0)
    model = trained(splits, recipe, tmp_path / "checkpoint")
    assert not model.training
    assert judge(model, splits, splits.search_val, torch.device("cpu")).accuracy > 0.85


def test_search_val_and_test_teach_nothing(tmp_path):
    splits = digits(200)
    nothing = Split(torch.zeros_like(splits.search_val.images), splits.search_val.labels)
    blind = dataclasses.replace(splits, search_val=nothing, test=nothing)
    one = trained(splits, RECIPE, tmp_path / "one")
    assert same(one, trained(blind, RECIPE, tmp_path / "two"))
    fewer = dataclasses.replace(splits, search_train=splits.search_train.evenly_spaced(150))
    assert not same(one, trained(fewer, RECIPE, tmp_path / "three"))


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_a_run_that_was_stopped_ends_as_it_would_have(ema, tmp_path, monkeypatch):
    splits, recipe = digits(200), dataclasses.replace(RECIPE, ema=ema)
    whole = trained(splits, recipe, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def killed(model, *rest):
        raise Stopped

    path = tmp_path / "stopped"
    trained(splits, recipe, path)
    stored = torch.load(path, weights_only=True)
    assert stored["epochs"] == 4
    path.unlink()
    with monkeypatch.context() as patched:
        calls = iter([judge, killed])
        patched.setattr(
            "benchmarks.training.loop.judge", lambda *arguments: next(calls)(*arguments)
        )
        with pytest.raises(Stopped):
            trained(splits, recipe, path)
    assert torch.load(path, weights_only=True)["epochs"] == 2
    torch.rand(3)  # the global stream has moved on since
    assert same(whole, trained(splits, recipe, path, resume=True))


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    splits = digits(100)
    trained(splits, RECIPE, tmp_path / "checkpoint")
    other = dataclasses.replace(RECIPE, learning_rate=0.2)
    with pytest.raises(ValueError, match=r"learning_rate=0\.05, not with learning_rate=0\.2"):
        trained(splits, other, tmp_path / "checkpoint", resume=True)


def test_the_average_of_the_weights_is_another_network(tmp_path):
    splits = digits(200)
    averaged = trained(splits, dataclasses.replace(RECIPE, ema=0.9), tmp_path / "one")
    assert not same(averaged, trained(splits, RECIPE, tmp_path / "two"))


def test_a_training_that_diverges_says_so(tmp_path):
    wild = dataclasses.replace(RECIPE, learning_rate=1e30)
    with pytest.raises(FloatingPointError, match=r"learning_rate=1e\+30: training diverged"):
        trained(digits(200), wild, tmp_path / "checkpoint")


def test_cutout_blanks_a_square_that_may_leave_the_image():
    images = torch.ones(300, 2, 12, 12)
    out = cutout(images.clone(), 4, torch.Generator().manual_seed(0))
    blank = (out == 0).all(1)
    assert torch.equal(blank, (out == 0).any(1))  # the same place in all channels
    sizes = blank.sum((1, 2))
    assert sizes.max() == 16 and sizes.min() == 4  # a centre in the corner leaves a quarter
    rows, columns = blank.any(2).sum(1), blank.any(1).sum(1)
    assert torch.equal(rows * columns, sizes)
    assert blank.any(0).all()
    assert cutout(images, 0, torch.Generator()) is images


def test_processes_have_disjoint_shares_of_a_batch_of_equal_size():
    batch = torch.arange(11)
    shares = [Processes(rank, 3, "cpu").share(batch) for rank in range(3)]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert sorted(torch.cat(shares).tolist()) == list(range(9))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing=1.0: must be in"),
        ({"cutout": -1}, "cutout=-1: must be 0 or more"),
        ({"ema": 1.0}, "ema=1.0: must be in"),
        ({"epochs": 0}, "epochs=0: must be 1 or more"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        BaseRecipe(**setting)


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
