"""A plug-in for pruning-env: a task, a budget, a reward and an importance, each named `blobs`.

The task is to say in which third of a small grey image the bright blob is.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pruning_env import (
    Evidence,
    Outcome,
    Split,
    Splits,
    Task,
    load_state_file,
    register_budget,
    register_importance,
    register_reward,
    register_task,
)

SIZE = 9
"""Pixels of an image's side, three to a class."""


def network() -> nn.Module:
    """Two convolutions and a linear layer."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(3),
        nn.Flatten(),
        nn.Linear(72, 3),
    )


def images(data_root: str | None) -> Splits:
    """Made anew each time, from a fixed seed."""
    del data_root
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        labels = torch.arange(count) % 3
        noise = 0.3 * torch.rand((count, 1, SIZE, SIZE), generator=generator)
        bright = torch.arange(SIZE) // 3 == labels.view(-1, 1, 1, 1)
        return Split(noise + 0.7 * bright, labels)

    return Splits(split(96), split(48), split(48), mean=(0.4,), std=(0.3,), num_classes=3)


def weights(module: nn.Module, file: str | None, data_root: str | None) -> None:
    """From a file, or where there is none by a short training."""
    if file is not None:
        load_state_file(module, file)
        return
    generator = torch.Generator().manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter, generator=generator)
    splits = images(data_root)
    batch = splits.normalised(splits.search_train)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(batch), splits.search_train.labels)
        torch.autograd.backward(loss)
        optimizer.step()


register_task(
    Task(
        name="blobs",
        summary="where is the bright blob",
        build=network,
        load_data=images,
        load_weights=weights,
        input_shape=(1, SIZE, SIZE),
        val_seen=False,
    )
)


@register_budget("blobs")
def largest(model: nn.Module) -> float:
    """Entries of the largest weight."""
    return float(max(parameter.numel() for parameter in model.parameters()))


@register_reward("blobs")
def cautious(outcome: Outcome) -> Mapping[str, float]:
    """Parameters cut, as long as the accuracy holds."""
    holds = outcome.after.accuracy >= outcome.dense.accuracy
    return {"blobs": 1.0 - outcome.state.params if holds else -1.0}


@register_importance("blobs")
def in_order(evidence: Evidence) -> NDArray[np.float64]:
    """A group's first channels matter most."""
    return np.arange(evidence.graph.num_channels, 0, -1, dtype=np.float64)
