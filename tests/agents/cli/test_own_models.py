"""The command line on somebody's own model and images: found, saved, and found again."""

import json
import sys

import pytest
import torch

from pruning_agents.cli.main import main
from pruning_env.tasks import registry
from pruning_env.tasks.registry import task_names
from pruning_env.tasks.storage import load_pruned, read_recipe
from tests.helpers.image_files import write_digits, write_network

NAME = "small_net-on-digits"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def given(place):
    """What a user types to say what is pruned."""
    model, weights = write_network(place)
    images = write_digits(place / "digits")
    return [
        *["--model", model, "--weights", str(weights)],
        *["--images", str(images), "--input", "1x8x8"],
    ]


@pytest.fixture
def elsewhere(monkeypatch):
    """As in a process that has not made the task."""
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    registry._TASKS.pop(NAME, None)


@pytest.fixture(scope="module")
def pruned(place, given):
    out = place / "run"
    assert main(["prune", *given, "--budget", "macs=0.5", "--out", str(out), "--test"]) == 0
    return out


def refused(capsys, *arguments):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    assert stopped.value.code == 2
    return capsys.readouterr().err


def test_prune_takes_any_model_and_images(pruned):
    row = json.loads((pruned / "result.json").read_text())
    assert row["task"] == NAME and row["val_seen"] and row["macs_ratio"] <= 0.5
    assert read_recipe(pruned / "pruned").extra["source"]["num_classes"] == 3


def test_evaluate_finds_images_and_dense_weights_by_what_was_saved(
    pruned, given, elsewhere, capsys
):
    assert main(["evaluate", str(pruned), "--test", "--model", given[1]]) == 0
    row = json.loads((pruned / "result.json").read_text())
    shown = capsys.readouterr().out
    assert f"{row['val_accuracy']:.2%}" in shown and f"{row['dense_test_accuracy']:.2%}" in shown


def test_code_that_a_saved_network_names_is_not_run_unasked(pruned, given, elsewhere, capsys):
    assert f"give --model {given[1]}" in refused(capsys, "evaluate", str(pruned))


def test_images_that_have_moved_are_asked_for(pruned, given, place, elsewhere, capsys):
    (place / "digits").rename(place / "moved")
    try:
        model = ["--model", given[1]]
        message = refused(capsys, "evaluate", str(pruned), *model)
        assert f"images: there is no folder {place / 'digits'}" in message
        assert main(["evaluate", str(pruned), *model, "--images", str(place / "moved")]) == 0
    finally:
        (place / "moved").rename(place / "digits")


def test_images_of_other_classes_are_refused(pruned, given, elsewhere, capsys, tmp_path):
    other = write_digits(tmp_path / "other", classes=4)
    arguments = ("--model", given[1], "--images", str(other))
    message = refused(capsys, "evaluate", str(pruned), *arguments)
    assert "has 4 classes; the model has 3 outputs" in message


def test_a_saved_network_is_finetuned(pruned, given, elsewhere, tmp_path):
    out = str(tmp_path / "tuned")
    settings = ["--epochs", "1", "--batch-size", "32", "--no-progress", "--precision", "float32"]
    assert main(["finetune", str(pruned), "--model", given[1], *settings, "--out", out]) == 0
    recipe = read_recipe(tmp_path / "tuned" / "pruned")
    assert recipe.extra["source"] == read_recipe(pruned / "pruned").extra["source"]
    assert load_pruned(tmp_path / "tuned" / "pruned")(torch.zeros(1, 1, 8, 8)).shape == (1, 3)


def test_searches_take_them_and_rows_replay(given, tmp_path, capsys):
    out = str(tmp_path / "run")
    search = ["--agent", "random-search", "--evaluations", "3", "--no-progress"]
    assert main(["train", *search, *given, "--out", out]) == 0
    assert main(["validate", out, *given]) == 0
    assert "1 of 1 rows replay" in capsys.readouterr().out


def test_profile_and_graph_take_them(given, capsys):
    assert main(["profile", *given, "--steps", "1"]) == 0
    assert NAME in capsys.readouterr().out
    assert main(["graph", given[1], "--input", "1x8x8"]) == 0
    assert "frozen" in capsys.readouterr().out


def test_a_task_in_a_module_is_taken(tmp_path, monkeypatch, capsys):
    (tmp_path / "my_tasks.py").write_text(
        "from dataclasses import replace\n"
        "from pruning_env.tasks.registry import get_task\n\n\n"
        "def mine():\n    return replace(get_task('digits-resnet8'), name='mine')\n"
    )
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    out = str(tmp_path / "run")
    task = ["--task", "my_tasks:mine"]
    assert main(["prune", *task, "--out", out, "--budget", "params=0.5"]) == 0
    assert "mine" in task_names()
    registry._TASKS.pop("mine")
    assert "Give --task module:object" in refused(capsys, "evaluate", out)
    assert main(["evaluate", out, *task]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "x"], "argument --images: needs --model as well"),
        (["--model", "resnet18"], "give one of them"),
        (["--model", "resnet18", "--images", "x", "--task", "mnist-lenet5"], "not allowed with"),
        (["--model", "resnet19", "--images", "{images}"], "did you mean resnet18"),
        (["--model", "resnet18", "--images", "{images}"], "random weights"),
        (["--model", "resnet18", "--images", "/nowhere"], "no folder /nowhere"),
        (["--input", "3x8"], "not a shape such as 3x224x224"),
        (["--mean", "a,b"], "not numbers"),
        (["--task", "math:pi"], "argument --task: task='math:pi' is a float, not a Task"),
        (["--task", "nowhere:task"], "cannot be imported"),
        (["--env", "CNNPruneTabular-v0", "--task", "mnist-lenet5"], "takes only --task"),
    ],
)
def test_what_cannot_be_done_is_refused(given, arguments, message, tmp_path, capsys):
    arguments = [argument.format(images=given[5]) for argument in arguments]
    assert message in refused(capsys, "prune", *arguments, "--out", str(tmp_path))


def test_a_saved_network_of_a_registered_task_takes_no_other_model(tmp_path, capsys):
    out = str(tmp_path / "run")
    assert main(["prune", "--out", out]) == 0
    message = refused(capsys, "evaluate", out, "--model", "resnet18")
    assert "argument --model" in message and "digits-resnet8" in message


def test_a_saved_network_is_exported_without_its_images(
    pruned, given, place, elsewhere, tmp_path, capsys
):
    (place / "digits").rename(place / "moved")
    try:
        out = ["--out", str(tmp_path / "small.pt2")]
        assert main(["export", str(pruned), "--model", given[1], *out]) == 0
    finally:
        (place / "moved").rename(place / "digits")
    assert "latency, batch 1" in capsys.readouterr().out
    program = torch.export.load(tmp_path / "small.pt2").module()
    assert program(torch.zeros(4, 1, 8, 8)).shape == (4, 3)


def test_int8_shows_its_accuracy_beside(pruned, given, elsewhere, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = ["--out", str(tmp_path / "small.onnx"), "--int8", "--test"]
    assert main(["export", str(pruned), "--model", given[1], *out]) == 0
    shown = capsys.readouterr().out
    assert "ONNX Runtime, int8" in shown and "test accuracy" in shown and "opset 18" in shown
    row = json.loads((pruned / "result.json").read_text())
    assert f"{row['test_accuracy']:.2%}" in shown
    assert {file.name for file in tmp_path.iterdir()} == {"small.onnx", "small.int8.onnx"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "small.bin"], "must end in one of .onnx, .pt2, .safetensors"),
        (["--out", "small.pt2", "--int8"], "argument --int8: needs an ONNX file"),
    ],
)
def test_files_that_cannot_be_written_are_refused(pruned, arguments, message, capsys):
    assert message in refused(capsys, "export", str(pruned), *arguments)
