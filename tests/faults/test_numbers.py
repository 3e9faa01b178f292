"""Numbers that are none, data that teach nothing, memory that runs out, functions that fail."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pruning_env.process.budgets as budgets
import pruning_env.tasks.registry as tasks
from pruning_env.evaluation.metrics import BatchSize, Outputs, measure, outputs_in_batches
from pruning_env.evaluation.strategies import measure_all
from pruning_env.process.budgets import register_budget
from pruning_env.tasks.data import load_npz
from pruning_env.tasks.registry import Task, get_task, register_task
from tests.helpers.small import SmallNet, small_evaluator, small_model, small_splits


@pytest.fixture(autouse=True)
def own_registries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_TASKS", dict(tasks._TASKS))
    monkeypatch.setattr(budgets, "_MEASURED", dict(budgets._MEASURED))


def episode_is_finite(env: gym.Env) -> list[dict[str, Any]]:
    """Two steps of an environment; what they say of the networks."""
    observation, info = env.reset(seed=0)
    infos = [info]
    for _ in range(2):
        assert np.isfinite(observation).all() and env.observation_space.contains(observation)
        observation, reward, terminated, _, info = env.step(np.zeros(env.action_space.shape))
        assert math.isfinite(float(reward))
        infos.append(info)
        if terminated:
            break
    for info in infos:
        assert math.isfinite(info["loss"]) and 0 <= info["accuracy"] <= 1
    return infos


def made(build: Callable[[], nn.Module], splits: Any = None, **arguments: Any) -> gym.Env:
    """An environment on a network and data of one's own."""
    register_task(
        Task(
            name="own",
            summary="of a test",
            build=build,
            load_data=lambda root: small_splits() if splits is None else splits,
            load_weights=lambda module, file, root: None,
            input_shape=(1, 8, 8),
            val_seen=False,
        )
    )
    return gym.make("CNNPrune-v0", task="own", disable_env_checker=True, **arguments)


# Weights and outputs that are not numbers


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", ["taylor", "l1"])
def test_weights_that_are_not_numbers_end_in_a_clear_error(value: float, kind: str) -> None:
    def build() -> nn.Module:
        model = small_model()
        with torch.no_grad():
            model.get_parameter("inner.0.weight")[2].fill_(value)
        return model

    with pytest.raises(ValueError, match=r"inner|finite|NaN|nan"):
        made(build, importance=kind)


def test_a_weights_file_with_nan_names_file_and_tensor(tmp_path: Path) -> None:
    task = get_task("digits-resnet8")
    state = task.model().state_dict()
    state["linear.weight"][0, 0] = math.nan
    save_file(state, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match=r"weights\.safetensors.*linear\.weight.*finite"):
        gym.make("CNNPrune-v0", weights=str(tmp_path / "weights.safetensors"))


class ReturnsNaN(SmallNet):
    """Says nothing of any image, or of those that are bright."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = super().forward(x)
        bright = x.mean((1, 2, 3), keepdim=False)[:, None]
        return logits / 0.0 * 0.0 if self.always else logits + (0.2 - bright).sqrt() * 0


@pytest.mark.parametrize("always", [True, False])
def test_a_model_that_returns_nan_is_wrong_there_and_everything_else_is_a_number(
    always: bool,
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ReturnsNaN(always).eval()
    images = small_splits().search_val.images
    with torch.no_grad():
        assert bool(model(images).isnan().any()) and bool(model(images).isnan().all()) == always
    try:
        env = made(lambda: model, importance="l1", recovery="none")
    except ValueError as error:
        assert "finite" in str(error) or "NaN" in str(error)
    else:
        infos = episode_is_finite(env)
        assert infos[0]["accuracy"] < 1 if not always else infos[0]["accuracy"] == 0


# Data that teach nothing


def write(root: Path, labels: np.ndarray, tests: np.ndarray | None = None) -> None:
    rng = np.random.default_rng(0)
    tests = labels if tests is None else tests
    np.savez(
        root / "mine.npz",
        x_train=rng.integers(0, 255, (len(labels), 8, 8), np.uint8),
        y_train=labels,
        x_test=rng.integers(0, 255, (len(tests), 8, 8), np.uint8),
        y_test=tests,
    )


@pytest.mark.parametrize("label", [0, 3])
def test_one_class_and_constant_labels_are_judged_like_any(tmp_path: Path, label: int) -> None:
    write(tmp_path, np.full(60, label))
    splits = load_npz("mine", tmp_path)
    assert splits.num_classes == label + 1
    infos = episode_is_finite(made(small_model, splits))
    assert {info["accuracy"] for info in infos} <= {count / 6 for count in range(7)}


def test_a_network_with_one_output_is_always_right_and_has_no_gradient() -> None:
    def build() -> nn.Module:
        model = small_model()
        model.head = nn.Linear(8, 1)
        return model

    splits = small_splits()
    parts = {
        name: dataclasses.replace(
            getattr(splits, name), labels=torch.zeros_like(getattr(splits, name).labels)
        )
        for name in ("search_train", "search_val", "test")
    }
    infos = episode_is_finite(made(build, dataclasses.replace(splits, num_classes=1, **parts)))
    assert [info["accuracy"] for info in infos] == [1.0] * len(infos)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_too_few_images_are_refused_with_the_file(tmp_path: Path, count: int) -> None:
    write(tmp_path, np.zeros(count, np.int64))
    with pytest.raises(ValueError, match=r"mine\.npz.*search_val"):
        load_npz("mine", tmp_path)


def test_a_split_of_one_image_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, np.arange(20) % 2)
    with pytest.raises(ValueError, match=r"splits\.search_val has 1 images; at least 2"):
        made(small_model, load_npz("mine", tmp_path, search_val=1))


def test_one_test_image_is_enough_for_a_report(tmp_path: Path) -> None:
    write(tmp_path, np.arange(40) % 2, np.array([1]))
    env = made(small_model, load_npz("mine", tmp_path))
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape))
    report: Any = env.unwrapped
    assert report.report().accuracy in (0.0, 1.0)


# Memory that runs out


class Hungry(nn.Module):
    """Runs out of memory, as a GPU does, with more than `room` images at a time."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.inner, self.room, self.sizes = small_model(), room, []  # type: ignore[var-annotated]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.inner(x)


@pytest.mark.parametrize("room", [1, 3, 7, 49])
def test_out_of_memory_halves_the_batch_says_so_and_gives_the_same_result(room: int) -> None:
    split = small_splits().search_val
    expected = measure(small_model(), split.images, split.labels, 50)
    model = Hungry(room).eval()
    with pytest.warns(RuntimeWarning, match=r"out of memory with 50 images .*; going on with 25"):
        found = measure(model, split.images, split.labels, 50)
    assert found.accuracy == expected.accuracy
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    fitting = [size for size in model.sizes if size <= room]
    assert sum(fitting) == 50 and max(fitting) > room // 2


def test_every_image_is_run_once_and_in_order_when_batches_are_halved() -> None:
    images = torch.arange(13.0)[:, None, None, None].expand(13, 1, 8, 8)
    model = Hungry(4)
    model.inner = nn.Flatten()
    with pytest.warns(RuntimeWarning):
        parts = list(outputs_in_batches(model, images, 13))
    assert [image for part, _ in parts for image in range(13)[part]] == list(range(13))
    assert torch.cat([outputs for _, outputs in parts])[:, 0].tolist() == list(range(13))


def test_one_image_that_does_not_fit_is_an_error() -> None:
    split = small_splits().search_val
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(torch.OutOfMemoryError):
            measure(Hungry(0), split.images, split.labels, 50)


def test_an_evaluator_goes_on_when_a_candidate_does_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = small_evaluator(batch_size=50).dense
    evaluator = small_evaluator(batch_size=50, recovery="none")
    forward = SmallNet.forward

    def hungry(self: SmallNet, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, x)

    monkeypatch.setattr(SmallNet, "forward", hungry)
    with pytest.warns(RuntimeWarning, match="going on with 12"):
        assert evaluator.dense.accuracy == expected.accuracy
    assert evaluator.batch_size == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what did not fit once is not tried again
        evaluator.evaluate(evaluator.graph.full())


def test_a_batch_that_several_candidates_share_stays_halved_too() -> None:
    evaluator = small_evaluator(recovery="none")
    images, labels = evaluator.images("search-val")
    limit = BatchSize(40)
    masks = [evaluator.graph.full()] * 4
    with pytest.warns(RuntimeWarning, match="10 images .*; going on with 5"):
        measure_all(Crowded(7), masks, images, labels, limit)
    assert limit.images == 20
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure_all(Crowded(7), masks, images, labels, limit)


class Crowded:
    """Four candidates at once that all say class 0, of no more than `room` images."""

    at_once = 4

    def __init__(self, room: int) -> None:
        self.room = room

    @contextlib.contextmanager
    def running(self, keeps: Sequence[Any]) -> Iterator[Outputs]:
        def outputs(images: torch.Tensor) -> torch.Tensor:
            if len(images) > self.room:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return torch.zeros(len(keeps), len(images), 10)

        yield outputs


# Budgets that fail


def fails_after(calls: int, failure: Callable[[], Any]) -> Callable[[nn.Module], Any]:
    """A budget that is the number of parameters, until it fails."""
    count: Iterator[int] = iter(range(10**6))

    def budget(model: nn.Module) -> Any:
        if next(count) >= calls:
            return failure()
        return sum(parameter.numel() for parameter in model.parameters())

    return budget


def raises() -> None:
    raise ZeroDivisionError("no power meter")


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (raises, RuntimeError),
        (lambda: None, RuntimeError),
        (lambda: "12 W", RuntimeError),
        (lambda: math.nan, ValueError),
        (lambda: math.inf, ValueError),
        (lambda: -1.0, ValueError),
    ],
)
def test_a_budget_function_that_fails_is_named_and_the_episode_stays_where_it_was(
    failure: Callable[[], Any], error: type[Exception]
) -> None:
    register_budget("energy", fails_after(2, failure))
    env = made(small_model, budget={"energy": 0.3}, recovery="none", channels_per_step=0.1)
    env.reset(seed=0)
    unwrapped: Any = env.unwrapped
    action = np.zeros(env.action_space.shape or (), np.float32)
    env.step(action)
    before = unwrapped.state()
    with pytest.raises(error, match=r"budget function 'energy' (raised|returned)") as raised:
        env.step(action)
    assert "must return a finite number, at least 0" in str(raised.value)
    if failure is raises:
        assert "ZeroDivisionError: no power meter" in str(raised.value)
        assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert unwrapped.state() is before
