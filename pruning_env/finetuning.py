"""The recovery that trains: a few SGD steps in which the dense network teaches the pruned one.

Source of loss and optimiser: the post-training of RL-Pruner (arXiv 2411.06463), which runs epochs
where this runs steps. Knows nothing of channel graphs, states or accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pruning_env.arguments import check_fraction, check_positive
from pruning_env.data import Split, Splits

__all__ = ["FineTuner", "FineTuning", "augment", "distillation_loss"]


@dataclass(frozen=True)
class FineTuning:
    """How a pruned network is trained.

    Attributes:
        steps: SGD steps, at least 1.
        lr: learning rate of the first step; it falls towards 0 along half a cosine.
        batch_size: images per step, at least 2; all of them where there are fewer.
        momentum: of SGD, in [0, 1).
        weight_decay: of SGD.
        temperature: T, by which both networks' logits are divided.
        distillation: share of the loss that the teacher's outputs have, in (0, 1].
    """

    steps: int = 20
    lr: float = 1e-3
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 2.0
    distillation: float = 0.75

    def __post_init__(self) -> None:
        # The names that users of the environment give.
        for name, value, least in (
            ("finetune_steps", self.steps, 1),
            ("batch_size", self.batch_size, 2),
        ):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(
                    f"{name}={value!r} is not allowed; give an integer of at least {least}"
                )
        check_positive("finetune_lr", self.lr)
        check_positive("temperature", self.temperature)
        check_fraction("distillation", self.distillation)


class FineTuner:
    """Trains pruned networks on search-train, which stays on the device as stored.

    Args:
        teacher: the dense network on the device, eval mode; read only.
        splits: search-train, what normalises it, and how it may be augmented.
        settings: see `FineTuning`.
        dtype: of the images that the networks take.
    """

    def __init__(
        self, teacher: nn.Module, splits: Splits, settings: FineTuning, dtype: torch.dtype
    ) -> None:
        self._teacher = teacher
        self._settings = settings
        self._dtype = dtype
        self._splits = splits
        self._device = next(teacher.parameters()).device
        self._images = splits.search_train.images.to(self._device)
        self._labels = splits.search_train.labels.to(self._device)

    def train(self, model: nn.Module, seed: int) -> None:
        """Train `model` in place; eval mode afterwards, with the statistics of its last batches.

        A function of the model's weights and `seed` alone: batches, augmentation and dropout draw
        from generators of their own, and the optimiser starts fresh. On a GPU, bit for bit only
        as far as its backward kernels are deterministic.

        Args:
            model: returns (N, classes) logits, on the teacher's device.
            seed: at least 0.
        """
        # The caller may be recording no gradients, and owns the global generators, which dropout
        # draws from.
        on_gpu = self._device.type == "cuda"
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            torch.random.fork_rng(devices=[self._device] if on_gpu else []),
        ):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed)
            model.train().to(memory_format=torch.channels_last)
            self._descend(model, torch.Generator().manual_seed(seed))
            model.eval().to(memory_format=torch.contiguous_format)

    def _descend(self, model: nn.Module, generator: torch.Generator) -> None:
        settings = self._settings
        optimiser = torch.optim.SGD(
            model.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        kind, on_gpu = self._device.type, self._device.type == "cuda"
        for step, index in enumerate(self._order(generator)):
            images = self._batch(index, generator)
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            with torch.autocast(kind, torch.bfloat16, enabled=on_gpu):
                with torch.no_grad():
                    taught = self._teacher(images)
                logits = model(images)
            optimiser.zero_grad(set_to_none=True)
            distillation_loss(
                logits.float(),
                taught.float(),
                self._labels[index.to(self._device)],
                settings.temperature,
                settings.distillation,
            ).backward()
            optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _order(self, generator: torch.Generator) -> Iterator[torch.Tensor]:
        """Which images each step sees: a fresh shuffle whenever too few are left."""
        total = len(self._labels)
        size = min(self._settings.batch_size, total)
        order = torch.randperm(total, generator=generator)
        for _ in range(self._settings.steps):
            if len(order) < size:
                order = torch.randperm(total, generator=generator)
            yield order[:size]
            order = order[size:]

    def _batch(self, index: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        index = index.to(self._device)
        raw = augment(self._images[index], self._splits.shift, self._splits.flip, generator)
        batch = Split(raw, self._labels[index])
        images = self._splits.normalised(batch, self._device, self._dtype)
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        return images


def distillation_loss(
    logits: torch.Tensor,
    taught: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    share: float,
) -> torch.Tensor:
    """`share * T^2 * KL(teacher || student) + (1 - share) * cross-entropy`, mean per image.

    Both networks' outputs are softened by T in the first term; T^2 keeps its gradient's size.

    Args:
        logits: (N, classes) of the student.
        taught: (N, classes) of the teacher.
        labels: (N,) int64.
        temperature: T > 0.
        share: in [0, 1].
    """
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(taught / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(logits, labels)
    return share * temperature**2 * divergence + (1 - share) * hard


def augment(
    images: torch.Tensor, shift: int, flip: bool, generator: torch.Generator
) -> torch.Tensor:
    """Shift each image by up to `shift` pixels (zeros move in), and mirror half of them.

    Args:
        images: (N, C, H, W), any dtype and device.
        shift: largest shift in either direction, 0 for none.
        flip: whether left and right may be exchanged.
        generator: a CPU generator, so that all devices draw the same.

    Returns:
        As `images`; `images` itself if there is nothing to do.
    """
    device = images.device
    if flip:
        mirrored = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(mirrored.to(device)[:, None, None, None], images.flip(3), images)
    if shift:
        count, channels, height, width = images.shape
        padded = F.pad(images, (shift,) * 4)
        moves = torch.randint(0, 2 * shift + 1, (2, count), generator=generator).to(device)
        rows = moves[0][:, None] + torch.arange(height, device=device)
        columns = moves[1][:, None] + torch.arange(width, device=device)
        images = padded[
            torch.arange(count, device=device)[:, None, None, None],
            torch.arange(channels, device=device)[None, :, None, None],
            rows[:, None, :, None],
            columns[:, None, None, :],
        ]
    return images
