"""Batch-norm recalibration: statistics become those of the images, and nothing else moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pruning_env.evaluation.recovery.batch_norm import (
    CALIBRATION_BATCH,
    RECOVERIES,
    recalibrate_batch_norm,
)
from tests.helpers.networks import jitter
from tests.helpers.small import small_model


@pytest.fixture
def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 3 + 2 * torch.randn(2 * CALIBRATION_BATCH, 1, 8, 8, generator=generator)


def test_statistics_become_the_average_over_batches_of_the_images(images: torch.Tensor) -> None:
    model = small_model()
    jitter(model)
    with torch.no_grad():
        halves = [model.get_submodule("stem.0")(half) for half in images.split(CALIBRATION_BATCH)]
    recalibrate_batch_norm(model, images)
    mean = torch.stack([half.mean((0, 2, 3)) for half in halves]).mean(0)
    variance = torch.stack([half.var((0, 2, 3), unbiased=True) for half in halves]).mean(0)
    assert torch.allclose(model.get_buffer("stem.1.running_mean"), mean, atol=1e-5)
    assert torch.allclose(model.get_buffer("stem.1.running_var"), variance, rtol=1e-5)


def test_what_was_stored_before_does_not_matter(images: torch.Tensor) -> None:
    models = [small_model(), small_model()]
    for module in models[1].modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(7)  # type: ignore[union-attr]
            module.running_var.fill_(9)  # type: ignore[union-attr]
            module.num_batches_tracked.fill_(100)  # type: ignore[union-attr]
    for model in models:
        recalibrate_batch_norm(model, images)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_parameters_momentum_and_gradients_stay_and_the_model_ends_in_eval_mode(
    images: torch.Tensor,
) -> None:
    model = small_model().train()
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    recalibrate_batch_norm(model, images)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.named_parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module.training for module in model.modules())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms] == [0.1] * len(norms)


def test_dropout_stays_off(images: torch.Tensor) -> None:
    def estimate(dropout: float) -> torch.Tensor:
        model = nn.Sequential(nn.Dropout(dropout), nn.BatchNorm2d(1))
        recalibrate_batch_norm(model, images)
        return model.get_buffer("1.running_mean")

    assert torch.equal(estimate(0.9), estimate(0.0))


def test_a_few_images_more_than_a_batch_are_split_evenly() -> None:
    # One image alone would leave batch norm a single value per channel, which torch refuses.
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    recalibrate_batch_norm(model, torch.randn(CALIBRATION_BATCH + 1, 3))
    assert int(model.get_buffer("1.num_batches_tracked")) == 2


def test_a_failing_forward_pass_leaves_momentum_and_mode_in_order() -> None:
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Linear(7, 2))
    with pytest.raises(RuntimeError):
        recalibrate_batch_norm(model, torch.zeros(4, 1, 8, 8))
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.momentum == 0.1
    assert not norm.training


@pytest.mark.parametrize("name", RECOVERIES)
def test_every_recovery_leaves_a_model_without_batch_norm_as_it_was(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GroupNorm(1, 2), nn.Dropout(0.5)).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    RECOVERIES[name](model, torch.randn(4, 1, 8, 8))
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
    assert not model.training


def test_no_recovery_leaves_statistics_as_they_were(images: torch.Tensor) -> None:
    model = small_model()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    RECOVERIES["none"](model, images)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
