"""The recovery that trains: a few SGD steps in which the dense network teaches the pruned one.

Source of loss and optimiser: the post-training of RL-Pruner (arXiv 2411.06463), which runs epochs
where this runs steps. Knows nothing of channel graphs, states or accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from pruning_env.arguments import check_fraction, check_positive
from pruning_env.tasks.data import Split, Splits

__all__ = ["FineTuner", "FineTuning", "augment", "distillation_loss", "training_images"]


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
        warmup: steps in which the learning rate rises linearly to `lr`, before the cosine; fewer
            than `steps`.
        nesterov: whether momentum is Nesterov's, which must then be above 0.
    """

    steps: int = 20
    lr: float = 1e-3
    batch_size: int = 128
    momentum: float = 0.9
    weight_decay: float = 5e-4
    temperature: float = 2.0
    distillation: float = 0.75
    warmup: int = 0
    nesterov: bool = False

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
        if not 0 <= self.warmup < self.steps:
            raise ValueError(
                f"warmup={self.warmup!r} is not allowed; give at least 0 and fewer than the "
                f"{self.steps} steps"
            )

    def rate(self, step: int) -> float:
        """The learning rate of step 0 <= `step` < `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        angle = math.pi * (step - self.warmup) / (self.steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(angle))


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

    @property
    def images(self) -> int:
        """Images that a network is shown when it is trained, each as often as it is shown."""
        return self._settings.steps * min(self._settings.batch_size, len(self._labels))

    def train(
        self,
        model: nn.Module,
        seed: int,
        *,
        every: int = 1,
        watch: Callable[[int], None] | None = None,
    ) -> None:
        """Train `model` in place; eval mode afterwards, with the statistics of its last batches.

        A function of the model's weights and `seed` alone: batches, augmentation and dropout draw
        from generators of their own, and the optimiser starts fresh. On a GPU, bit for bit only
        as far as its backward kernels are deterministic.

        Args:
            model: returns (N, classes) logits, on the teacher's device.
            seed: at least 0.
            every: steps between two calls of `watch`.
            watch: called with the number of steps made, the model in eval mode; it may read the
                model and copy from it, and changes nothing. No call changes the result.
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
            for step in self._descend(model, torch.Generator().manual_seed(seed)):
                if watch is not None and step % every == 0:
                    model.eval()
                    watch(step)
                    model.train()
            model.eval().to(memory_format=torch.contiguous_format)

    def _descend(self, model: nn.Module, generator: torch.Generator) -> Iterator[int]:
        """Train; after each step, the number of steps made."""
        settings = self._settings
        optimiser = torch.optim.SGD(
            model.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        kind, on_gpu = self._device.type, self._device.type == "cuda"
        for step, index in enumerate(self._order(generator)):
            images = self._batch(index, generator)
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(step)
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
            yield step + 1
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
        chosen = self._images[index.to(self._device)]
        return training_images(self._splits, chosen, generator, self._dtype)


def training_images(
    splits: Splits,
    stored: torch.Tensor,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    """A batch as training sees it: shifted and mirrored as `splits` allows, then normalised.

    Args:
        splits: says what normalises the images, and how they may be changed.
        stored: (N, C, H, W) images of a split, as stored, on any device.
        generator: a CPU generator.
        dtype: of the result.

    Returns:
        (N, C, H, W) on the same device, in channels-last order.
    """
    moved = augment(stored, splits.shift, splits.flip, generator)
    labels = torch.empty(len(moved), dtype=torch.int64)  # `Split` wants some; nobody reads them
    images = splits.normalised(Split(moved, labels), stored.device, dtype)
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


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
