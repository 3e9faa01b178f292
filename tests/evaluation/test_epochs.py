"""Training by epochs: what it learns from, that it goes on, and which epoch it keeps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pruning_env.evaluation import precision
from pruning_env.evaluation.gradients import gradient_layout, laid_out
from pruning_env.evaluation.metrics import Metrics
from pruning_env.evaluation.recovery.processes import Processes
from pruning_env.evaluation.recovery.training import (
    Checkpoints,
    TrainingRecipe,
    cutout,
    judge,
    train_epochs,
)
from pruning_env.tasks.data import Split, Splits, load_digits8
from pruning_env.tasks.models import CifarResNet

RECIPE = TrainingRecipe(epochs=4, batch_size=50, learning_rate=0.05, cutout=3, label_smoothing=0.1)


def digits(images: int = 1000) -> Splits:
    splits = load_digits8()
    return dataclasses.replace(splits, search_train=splits.search_train.evenly_spaced(images))


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CifarResNet(8, in_channels=1, shortcut="B", widths=(4, 8, 16))


def trained(
    splits: Splits, recipe: TrainingRecipe, path: Path, resume: bool = False, **options: Any
) -> nn.Module:
    kept = Checkpoints(path, every=2, resume=resume)
    return train_epochs(network(), splits, recipe, checkpoints=kept, **options).model


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


class Stopped(Exception):
    pass


def stop(epoch: int, seen: Metrics) -> None:
    if epoch == 3:
        raise Stopped


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("chosen", [False, True])
def test_a_run_that_was_stopped_ends_as_it_would_have(ema, chosen, tmp_path):
    splits, recipe = digits(200), dataclasses.replace(RECIPE, ema=ema)
    teacher = network().eval()
    # By falling losses: the first epoch is best, and lies before the interruption.
    answers = {"whole": iter([3, 1, 5, 6, 7]), "cut": iter([3, 1, 5, 9]), "rest": iter([6, 7])}

    def options(name: str) -> dict[str, Any]:
        def choose(model: nn.Module) -> Metrics:
            return Metrics(0.5, float(next(answers[name])))

        return {"teacher": teacher, "choose": choose} if chosen else {}

    whole = trained(splits, recipe, tmp_path / "whole", **options("whole"))
    path = tmp_path / "stopped"
    with pytest.raises(Stopped):
        # Without a judge only checkpoints are watched; every third epoch has none.
        kept = Checkpoints(path, every=2 if chosen else 1)
        train_epochs(network(), splits, recipe, checkpoints=kept, watch=stop, **options("cut"))
    assert torch.load(path, weights_only=True)["epochs"] == 2
    torch.rand(3)  # the global stream has moved on since
    assert same(whole, trained(splits, recipe, path, resume=True, **options("rest")))


def test_the_epoch_that_the_judge_prefers_is_kept_the_earliest_of_equals():
    splits, recipe = digits(100), dataclasses.replace(RECIPE, epochs=3)
    seen: list[dict[str, torch.Tensor]] = []
    answers = [Metrics(0.5, 1.0), Metrics(0.7, 1.0), Metrics(0.7, 0.9), Metrics(0.7, 0.9)]

    def choose(model: nn.Module) -> Metrics:
        assert not model.training
        seen.append({name: t.clone() for name, t in model.state_dict().items()})
        return answers[len(seen) - 1]

    done = train_epochs(network(), splits, recipe, choose=choose)
    assert (done.before, done.epoch, len(seen)) == (answers[0], 2, 4)
    assert all(torch.equal(t, seen[2][name]) for name, t in done.model.state_dict().items())
    seen.clear()
    answers[0] = Metrics(0.9, 1.0)
    model = network()
    done = train_epochs(model, splits, recipe, choose=choose)
    assert done.epoch == 0 and same(done.model, network())


def test_a_teacher_is_followed_also_where_it_is_wrong():
    splits = digits(400)
    teacher = network().eval()
    recipe = dataclasses.replace(RECIPE, epochs=8, cutout=0, label_smoothing=0.0)
    images = splits.normalised(splits.search_val, torch.device("cpu"))

    def agreement(distillation: float) -> float:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            fresh = CifarResNet(8, in_channels=1, shortcut="B", widths=(4, 8, 16))
        settings = dataclasses.replace(recipe, distillation=distillation)
        student = train_epochs(fresh, splits, settings, teacher=teacher).model
        with torch.no_grad():
            return float((student(images).argmax(1) == teacher(images).argmax(1)).float().mean())

    assert agreement(1.0) > agreement(0.0) + 0.3


class Counting(nn.Module):
    """A teacher that counts the batches it is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.asked = network(), 0
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        return self.network(images)


@pytest.mark.filterwarnings('ignore:precision="bfloat16"')
def test_what_a_teacher_answered_is_asked_again_only_where_something_else_is_asked(tmp_path):
    splits, recipe = digits(200), dataclasses.replace(RECIPE, epochs=2, precision="float32")

    def taught(splits: Splits, recipe: TrainingRecipe, name: str, keep: bool = True) -> Any:
        teacher = Counting()
        folder = tmp_path / "answers" if keep else None
        model = trained(splits, recipe, tmp_path / name, teacher=teacher, answers=folder)
        return model, teacher.asked

    plain, asked = taught(splits, recipe, "plain", keep=False)
    assert asked == 2 * 4
    for name, expected in (("first", 8), ("second", 0)):
        model, asked = taught(splits, recipe, name)
        assert asked == expected and same(model, plain)
    # The student's rate is none of the teacher's business, and epochs that are kept are kept.
    faster = dataclasses.replace(recipe, learning_rate=0.1, epochs=3)
    assert taught(splits, faster, "faster")[1] == 4
    others = [dataclasses.replace(recipe, **{name: value}) for name, value in OTHER_QUESTIONS]
    assert [taught(splits, other, f"other{k}")[1] for k, other in enumerate(others)] == [
        8,
        16,
        8,
        8,
    ]
    turned = dataclasses.replace(splits.search_train, images=splits.search_train.images.flip(2))
    assert taught(dataclasses.replace(splits, search_train=turned), recipe, "data")[1] == 8


OTHER_QUESTIONS: list[tuple[str, Any]] = [
    ("seed", 1),
    ("batch_size", 25),
    ("cutout", 0),
    ("precision", "bfloat16"),
]


def test_answers_to_other_batches_are_not_taken(tmp_path):
    splits, recipe = digits(200), dataclasses.replace(RECIPE, epochs=1)
    trained(splits, recipe, tmp_path / "one", teacher=Counting(), answers=tmp_path / "answers")
    (file,) = (tmp_path / "answers").rglob("*.pt")
    torch.save(torch.load(file)[:-1], file)
    with pytest.raises(ValueError, match="holds the answers to other batches"):
        trained(splits, recipe, tmp_path / "two", teacher=Counting(), answers=tmp_path / "answers")


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


@pytest.mark.parametrize("quick", [True, False])
def test_a_training_runs_in_what_the_device_computes_quickly(quick, monkeypatch):
    monkeypatch.setattr(precision, "_computes_bfloat16", lambda device: quick)
    model, seen = network(), set()
    last = model.get_submodule("linear")
    last.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    recipe = dataclasses.replace(RECIPE, epochs=1, ema=0.0)
    ran = train_epochs(model, digits(100), recipe).recipe
    assert ran == dataclasses.replace(recipe, precision="bfloat16" if quick else "float32")
    assert (torch.bfloat16 in seen) == quick


def test_slow_bfloat16_is_run_where_it_is_asked_for_and_said_to_be_slow(monkeypatch):
    monkeypatch.setattr(precision, "_computes_bfloat16", lambda device: False)
    recipe = dataclasses.replace(RECIPE, epochs=1, precision="bfloat16")
    with pytest.warns(RuntimeWarning, match='precision="bfloat16": this cpu has no instructions'):
        assert train_epochs(network(), digits(100), recipe).recipe == recipe


@pytest.mark.parametrize(
    ("layer", "layout"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), torch.contiguous_format),
        (nn.Conv2d(64, 64, 1, stride=(1, 2), groups=16), torch.contiguous_format),
        (nn.Conv2d(16, 8, 1, stride=2), torch.channels_last),
        (nn.Conv2d(4, 8, 1), torch.channels_last),
        (nn.Conv2d(4, 8, 3, stride=2), torch.channels_last),
    ],
)
def test_channels_are_not_last_where_onednn_would_write_past_its_buffer(layer, layout):
    model, seen = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(10)), []
    model(torch.zeros(1, layer.in_channels, 8, 8))
    assert gradient_layout(model) == layout
    splits = digits(50)
    repeated = splits.search_train.images.expand(-1, layer.in_channels, -1, -1)
    train = Split(repeated.contiguous(), splits.search_train.labels)
    narrow = dataclasses.replace(splits, search_train=train, search_val=train)
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train_epochs(model, narrow, dataclasses.replace(RECIPE, epochs=1))
    assert seen[0].is_contiguous(memory_format=layout)


def test_images_of_one_channel_which_are_contiguous_in_either_order_are_laid_out_too():
    images = torch.rand(5, 8, 8, 1).permute(0, 3, 1, 2)
    assert images.is_contiguous() and images.stride() == (64, 1, 8, 1)
    assert laid_out(images, nn.Conv2d(4, 8, 1, stride=2)).stride() == (64, 64, 8, 1)


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
        ({"precision": "int8"}, "precision='int8': must be one of"),
        ({"distillation": 1.5}, "distillation=1.5: must be in"),
        ({"temperature": 0.0}, "temperature=0.0: must be above 0"),
    ],
)
def test_wrong_settings_are_named(setting, message):
    with pytest.raises(ValueError, match=message):
        TrainingRecipe(**setting)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    splits, path = digits(100), tmp_path / "checkpoint"
    train_epochs(network(), splits, RECIPE, checkpoints=Checkpoints(path, source="one"))
    with pytest.raises(ValueError, match="of the training of another network"):
        again = Checkpoints(path, resume=True, source="two")
        train_epochs(network(), splits, RECIPE, checkpoints=again)
