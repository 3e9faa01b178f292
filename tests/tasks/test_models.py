"""The networks are the published ones, weights files are read safely, training is as described."""

from __future__ import annotations

import json
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pruning_env.tasks.data import Split, load_digits8
from pruning_env.tasks.models import (
    CifarResNet,
    CifarVGG,
    LeNet5,
    PadShortcut,
    load_state_file,
    read_state_file,
)
from pruning_env.tasks.train import Recipe, evaluate, main, shifted, train


def digits_network(seed: int = 0) -> CifarResNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CifarResNet(8, in_channels=1, shortcut="B", widths=(4, 8, 16))


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "count"),
    [
        # He et al. 2016, table 6: 0.27, 0.46, 0.66, 0.85, 1.7 million with option A.
        (lambda: CifarResNet(20), 269_722),
        (lambda: CifarResNet(32), 464_154),
        (lambda: CifarResNet(44), 658_586),
        (lambda: CifarResNet(56), 853_018),
        (lambda: CifarResNet(110), 1_727_962),
        # Option B adds two 1 x 1 convolutions and their batch norms.
        (lambda: CifarResNet(20, shortcut="B"), 269_722 + 16 * 32 + 64 + 32 * 64 + 128),
        # The convolutions of VGG-16 (table 1, D) with biases, their batch norms, and 512 x 10 + 10.
        (lambda: CifarVGG(16), 14_714_688 + 2 * 4_224 + 5_130),
        (lambda: CifarVGG(11), 9_220_480 + 2 * 2_752 + 5_130),
        (lambda: CifarVGG(19), 20_024_384 + 2 * 5_504 + 5_130),
        # LeCun et al. 1998 with full connections between the convolutions.
        (LeNet5, 61_706),
    ],
)
def test_parameter_counts_are_the_published_ones(build, count):
    assert parameters(build()) == count


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (CifarResNet(8, in_channels=1, shortcut="B", num_classes=7), (1, 8, 8)),
        (CifarResNet(14, widths=(5, 8, 21), num_classes=7), (3, 31, 32)),
        (CifarVGG(11, in_channels=2, num_classes=7), (2, 32, 32)),
        (CifarVGG(16, num_classes=7), (3, 64, 48)),
        (LeNet5(num_classes=7), (1, 28, 28)),
        (LeNet5(in_channels=3, image_size=32, num_classes=7), (3, 32, 32)),
    ],
)
def test_images_become_one_row_of_logits_each_and_all_parameters_learn(model, shape):
    logits = model(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 7)
    logits.square().sum().backward()
    # VGG's deepest biases sit before a batch norm, so their gradient is zero but must exist.
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CifarResNet(18), "depth=18: must be 6n"),
        (lambda: CifarResNet(2), "depth=2: must be 6n"),
        (lambda: CifarResNet(20, widths=(16, 32)), r"widths=\(16, 32\): must be three"),
        (lambda: CifarResNet(20, widths=(16, 0, 64)), "must be three positive"),
        (lambda: CifarResNet(20, shortcut="C"), "shortcut='C': must be 'A'"),
        (lambda: CifarResNet(20, widths=(32, 16, 64)), "widths must not shrink"),
        (lambda: CifarVGG(13), "depth=13: must be one of 11, 16, 19"),
        (lambda: LeNet5(widths=(6, 16)), r"widths=\(6, 16\): must be four"),
        (lambda: LeNet5(image_size=30), "image_size=30: must be a multiple of 4"),
    ],
)
def test_wrong_arguments_of_a_network_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_option_a_takes_every_second_pixel_between_zero_channels():
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    out = PadShortcut(before=2, after=1)(x).numpy()
    expected = np.zeros((2, 6, 3, 3), np.float32)
    expected[:, 2:5] = x.numpy()[:, :, ::2, ::2]
    assert np.array_equal(out, expected)


def test_option_a_pads_half_of_the_new_channels_on_each_side():
    shortcuts = [m for m in CifarResNet(20).modules() if isinstance(m, PadShortcut)]
    assert [(s.before, s.after, s.stride) for s in shortcuts] == [(8, 8, 2), (16, 16, 2)]
    odd = [m for m in CifarResNet(8, widths=(4, 7, 7)).modules() if isinstance(m, PadShortcut)]
    assert [(s.before, s.after) for s in odd] == [(1, 2), (0, 0)]


def test_resnet_names_are_those_of_the_published_checkpoints():
    names = list(CifarResNet(20).state_dict())
    assert len(names) == 19 * 6 + 2  # 19 convolutions with batch norm (1 + 5 tensors), one linear
    assert names[:3] == ["conv1.weight", "bn1.weight", "bn1.bias"]
    assert {"layer1.0.conv1.weight", "layer3.2.bn2.running_var", "linear.bias"} <= set(names)
    assert not any("shortcut" in name for name in names)


def test_residual_blocks_add_what_went_in():
    """With the second batch norm of every block silenced, the network is its shortcuts alone."""
    model = CifarResNet(20).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bn2.weight"):
                parameter.zero_()
        x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        stem = torch.relu(model.bn1(model.conv1(x)))
        pooled = stem[:, :, ::4, ::4].mean((2, 3))
        padded = nn.functional.pad(pooled, (24, 24))
        torch.testing.assert_close(model(x), model.linear(padded))


def truncated(path, length):
    path.write_bytes(path.read_bytes()[:length])


@pytest.mark.parametrize("suffix", [".safetensors", ".th"])
@pytest.mark.parametrize("length", [0, 1, 7, 100, 2000, -1])
def test_a_weights_file_cut_short_is_refused_and_the_module_stays_as_it_was(
    tmp_path, suffix, length
):
    path = tmp_path / f"weights{suffix}"
    stored = digits_network(1).state_dict()
    if suffix == ".th":
        torch.save(stored, path)
    else:
        save_file(stored, path)
    truncated(path, length)
    model = digits_network(0)
    with pytest.raises(ValueError, match=r"weights: .* is not a whole"):
        load_state_file(model, path)
    untouched = digits_network(0).state_dict()
    assert all(torch.equal(t, untouched[name]) for name, t in model.state_dict().items())


class Bomb:
    """Unpickled by an unsafe reader, this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", ["torch", "legacy torch", "pickle"])
@pytest.mark.parametrize("suffix", [".th", ".safetensors"])
def test_a_weights_file_never_runs_code(tmp_path, form, suffix):
    path, crater = tmp_path / f"weights{suffix}", tmp_path / "crater"
    content = {"state_dict": {**digits_network().state_dict(), "linear.bias": Bomb(str(crater))}}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(ValueError, match="weights: "):
        read_state_file(path)
    assert not crater.exists()
    if suffix == ".th" and form != "pickle":  # the bomb is live: the unsafe reader sets it off
        torch.load(path, weights_only=False)
        assert crater.is_dir()


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_checkpoints_are_unwrapped_and_their_prefix_is_dropped(tmp_path, wrapper, prefix):
    stored = digits_network(1).state_dict()
    content = {f"{prefix}{name}": tensor for name, tensor in stored.items()}
    torch.save({wrapper: content, "epoch": 3} if wrapper else content, tmp_path / "w.pt")
    model = digits_network(0)
    load_state_file(model, tmp_path / "w.pt")
    assert all(torch.equal(t, stored[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3}, {"state_dict": {}}, {"a": "b"}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state_file(tmp_path / "w.pt")


def test_tensors_that_do_not_fit_are_listed_and_the_module_stays_as_it_was(tmp_path):
    state = digits_network(1).state_dict()
    del state["conv1.weight"]
    state["extra"] = torch.zeros(1)
    state["linear.weight"] = torch.zeros(10, 3)
    save_file(state, tmp_path / "w.safetensors")
    model = digits_network(0)
    with pytest.raises(ValueError, match="are not those of CifarResNet") as error:
        load_state_file(model, tmp_path / "w.safetensors")
    message = str(error.value)
    assert "1 missing (conv1.weight)" in message
    assert "1 unexpected (extra)" in message
    assert "1 of another shape (linear.weight (10, 3) instead of (10, 16))" in message
    untouched = digits_network(0).state_dict()
    assert all(torch.equal(t, untouched[name]) for name, t in model.state_dict().items())


def test_training_reads_neither_test_nor_the_pixels_of_search_val():
    splits = load_digits8()
    recipe = Recipe(epochs=1)
    plain = train(digits_network(), splits, recipe)
    nothing = torch.full_like(splits.test.images, float("nan"))
    swapped = replace(
        splits,
        test=Split(nothing, splits.test.labels),
        search_val=Split(splits.search_val.images.flip(3), splits.search_val.labels),
    )
    other = train(digits_network(), swapped, recipe)
    assert all(torch.equal(plain.state[name], tensor) for name, tensor in other.state.items())
    assert plain.val_loss != other.val_loss


def test_shifted_images_are_whole_windows_of_their_padded_form_at_every_place():
    padded = torch.arange(3 * 2 * 6 * 7, dtype=torch.float32).view(3, 2, 6, 7)
    batch = torch.tensor([2, 0]).repeat(100)
    cut = shifted(padded, batch, 1, torch.Generator().manual_seed(0))
    assert cut.shape == (200, 2, 4, 5)
    places = set()
    for image, source in zip(cut, batch, strict=True):
        row, column = divmod(int(image[0, 0, 0] - padded[source, 0, 0, 0]), 7)
        assert torch.equal(image, padded[source, :, row : row + 4, column : column + 5])
        places.add((row, column))
    assert places == {(row, column) for row in range(3) for column in range(3)}


def test_the_epoch_with_the_best_search_val_accuracy_is_kept():
    splits = load_digits8()
    epochs = 6
    longest = train(digits_network(), splits, Recipe(epochs=epochs))
    model = digits_network()
    model.load_state_dict(longest.state)
    accuracy, loss = evaluate(model, splits, splits.search_val)
    assert (accuracy, loss) == (longest.val_accuracy, longest.val_loss)
    assert 1 <= longest.epoch <= epochs
    assert accuracy > 0.8

    # With search-val labels that are nonsense for what has been learnt, an early epoch looks best.
    wrong = Split(splits.search_val.images, (splits.search_val.labels + 1) % 10)
    misled = train(digits_network(), replace(splits, search_val=wrong), Recipe(epochs=epochs))
    assert misled.epoch < longest.epoch


def test_evaluate_counts_right_answers_and_averages_the_loss():
    splits = load_digits8()
    model = digits_network()
    accuracy, loss = evaluate(model, splits, splits.test)
    with torch.no_grad():
        logits = model.eval()(splits.normalised(splits.test)).double()
    labels = splits.test.labels
    assert accuracy == float((logits.argmax(1) == labels).sum()) / len(labels)
    chosen = logits.log_softmax(1)[torch.arange(len(labels)), labels]
    assert loss == pytest.approx(float(-chosen.mean()), rel=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 10, 937])
def test_the_learning_rate_rises_to_its_peak_and_then_falls_towards_zero(steps):
    recipe = Recipe()
    rates = [recipe.rate(step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert min(rates) > 0
    assert 1 - 2 / steps <= max(rates) <= 1
    assert peak <= recipe.warmup * steps + 1


def test_the_training_command_writes_weights_and_a_row_that_says_how(tmp_path, capsys):
    out = tmp_path / "new" / "digits.safetensors"
    arguments = ["--task", "digits-resnet8", "--seed", "3", "--epochs", "2", "--out", str(out)]
    before = torch.get_rng_state()
    main(arguments)
    assert torch.equal(torch.get_rng_state(), before)
    row = json.loads(out.with_suffix(".json").read_text())
    assert row["command"].endswith(" ".join(arguments))
    assert row["recipe"]["seed"] == 3
    assert row["splits"] == {"search_train": 1000, "search_val": 400, "test": 397}
    assert row["torch"] == torch.__version__
    assert row["parameters"] == 77_754
    model = CifarResNet(8, in_channels=1, shortcut="B")
    load_state_file(model, out)
    splits = load_digits8()
    assert evaluate(model, splits, splits.search_val)[0] == row["val_accuracy"]
    assert evaluate(model, splits, splits.test)[0] == row["test_accuracy"]
    assert str(out) in capsys.readouterr().out

    again = tmp_path / "again.safetensors"
    main([*arguments[:-1], str(again)])
    assert again.read_bytes() == out.read_bytes()
    main(["--seed", "4", *arguments[4:-1], str(again)])
    assert again.read_bytes() != out.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "nope"], "task='nope': unknown; registered tasks are digits-resnet8"),
        (["--epochs", "0"], "epochs=0: must be 1 or more"),
        (["--epochs", "two"], "argument --epochs: invalid int value"),
        (["--seed", "-1"], "seed=-1: must be between 0"),
        (["--batch-size", "1"], "batch_size=1: must be 2 or more"),
        (["--batch-size", "1001"], "batch_size=1001: search-train has only 1000 images"),
        (["--learning-rate", "0"], "learning_rate=0.0: must be above 0"),
        (["--learning-rate", "nan"], "learning_rate=nan: must be above 0"),
        (["--learning-rate", "1e9"], "learning_rate=1000000000.0: training diverged in epoch 1"),
        (["--device", "abacus"], "argument --device: 'abacus'"),
        (["--out", "weights.pt"], "argument --out: 'weights.pt': must end in .safetensors"),
        (["--task", "cifar10-resnet20", "--data-root", "/nowhere"], "data_root="),
    ],
)
def test_wrong_arguments_of_the_training_command_are_named_and_nothing_is_written(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_full_recipe_reaches_97_percent_on_test(tmp_path):
    out = tmp_path / "digits.safetensors"
    main(["--task", "digits-resnet8", "--seed", "1", "--out", str(out)])
    row = json.loads(out.with_suffix(".json").read_text())
    assert row["val_accuracy"] >= 0.97
    assert row["test_accuracy"] >= 0.97
