"""Real images as files: scikit-learn's digits as PNG in folders by class, and a small network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pruning_env.tasks.data import load_digits8

NETWORK = """
from torch import nn


def build(num_classes=3):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(48, num_classes),
    )
"""


def write_digits(folder: Path, count: int = 90, classes: int = 3) -> Path:
    """`count` digits below `classes`, in folders zero, one, ..."""
    images, labels = load_digits8().search_train.images, load_digits8().search_train.labels
    chosen = torch.nonzero(labels < classes)[:count, 0]
    for number in chosen.tolist():
        place = folder / f"class{int(labels[number])}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = (images[number, 0].numpy() * 15.9).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number:04}.png")
    return folder


def write_network(folder: Path) -> tuple[str, Path]:
    """A network in a file, as `--model` takes it, and trained-looking weights for it."""
    file = folder / "small_net.py"
    file.write_text(NETWORK)
    names: dict = {}
    exec(NETWORK, names)
    torch.manual_seed(0)
    weights = folder / "small_net.pth"
    torch.save(names["build"]().state_dict(), weights)
    return f"{file}:build", weights
