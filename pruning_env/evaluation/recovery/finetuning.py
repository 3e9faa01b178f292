"""The recovery that trains: a few SGD steps in which the dense network teaches the pruned one.

Source of loss and optimiser: the post-training of RL-Pruner (arXiv 2411.06463), which runs epochs
where this runs steps. Knows nothing of channel graphs, states or accuracy.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from pruning_env.arguments import check_choice, check_count, check_fraction, check_positive
from pruning_env.evaluation.gradients import computing_gradients, gradient_layout, laid_out
from pruning_env.tasks.data import Split, Splits

__all__ = [
    "FineTuner",
    "FineTuning",
    "augment",
    "distillation_loss",
    "objective",
    "training_images",
]


@dataclass(frozen=True)
class FineTuning:
    """How a pruned network is trained.

    Attributes:
        steps: SGD steps, at least 1.
        lr: learning rate of the first step after warm-up.
        batch_size: images per step, at least 2; all of them where there are fewer.
        momentum: of SGD, in [0, 1).
        weight_decay: of SGD.
        temperature: T, by which both networks' logits are divided.
        distillation: share of the loss that the teacher's outputs have, in (0, 1].
        warmup: steps in which the learning rate rises linearly to `lr`, before the schedule; fewer
            than `steps`. Where `epochs` are given, epochs.
        nesterov: whether momentum is Nesterov's, which must then be above 0.
        epochs: so many times all of search-train instead of `steps`; None for `steps`.
        schedule: how the learning rate falls towards 0 after warm-up: "cosine" (half of one) or
            "linear"; or "constant".
        start: what training begins with in a network that is cut out of the dense one: "cut", the
            weights that are left, or "reconstruct", these after `Reconstruction`. One that comes
            with weights of its own begins with them.
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
    epochs: int | None = None
    schedule: str = "cosine"
    start: str = "cut"

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
        check_choice("schedule", self.schedule, _SCHEDULES)
        check_choice("start", self.start, STARTS)
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        unit, length = ("steps", self.steps) if self.epochs is None else ("epochs", self.epochs)
        if not 0 <= self.warmup < length:
            raise ValueError(
                f"warmup={self.warmup!r} is not allowed; give at least 0 and fewer than the "
                f"{length} {unit}"
            )

    def changed(self, arguments: Mapping[str, Any] | None) -> FineTuning:
        """These settings with others by name; what users give as `finetune_arguments`.

        Raises:
            ValueError: a name that there is not, or a value out of range.
        """
        if arguments is None:
            return self
        own = ("steps", "lr")  # arguments of the environment by themselves
        known = [f.name for f in dataclasses.fields(self) if f.name not in own]
        if not isinstance(arguments, Mapping) or not set(arguments) <= set(known):
            raise ValueError(
                f"finetune_arguments={arguments!r} is not allowed; give a dict of some of "
                f"{', '.join(known)}"
            )
        return dataclasses.replace(self, **arguments)

    def of_images(self, count: int) -> FineTuning:
        """The same in steps, where search-train has `count` images."""
        if self.epochs is None:
            return self
        an_epoch = max(1, count // self.batch_size)
        return dataclasses.replace(
            self, epochs=None, steps=self.epochs * an_epoch, warmup=self.warmup * an_epoch
        )

    def rate(self, step: int) -> float:
        """The learning rate of step 0 <= `step` < `steps`."""
        if step < self.warmup:
            return self.lr * (step + 1) / (self.warmup + 1)
        return self.lr * _SCHEDULES[self.schedule](
            (step - self.warmup) / (self.steps - self.warmup)
        )


#: What the training of a network that is cut out of the dense one may begin with.
STARTS = ("cut", "reconstruct")

#: Share of the learning rate that is left, by the share of the steps that is over.
_SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda over: 0.5 * (1 + math.cos(math.pi * over)),
    "linear": lambda over: 1 - over,
    "constant": lambda over: 1.0,
}


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
        self._settings = settings.of_images(len(splits.search_train))
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
        teacher: nn.Module | None = None,
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
            teacher: instead of the dense network, likewise in eval mode on the device.
            every: steps between two calls of `watch`.
            watch: called with the number of steps made, the model in eval mode; it may read the
                model and copy from it, and changes nothing. No call changes the result.
        """
        # The caller may be recording no gradients, and owns the global generators, which dropout
        # draws from.
        on_gpu = self._device.type == "cuda"
        with (
            computing_gradients(),
            torch.random.fork_rng(devices=[self._device] if on_gpu else []),
        ):
            torch.default_generator.manual_seed(seed)
            if on_gpu:
                with torch.cuda.device(self._device):
                    torch.cuda.manual_seed(seed)
            model.train().to(memory_format=gradient_layout(model))
            generator = torch.Generator().manual_seed(seed)
            for step in self._descend(
                model, self._teacher if teacher is None else teacher, generator
            ):
                if watch is not None and step % every == 0:
                    model.eval()
                    watch(step)
                    model.train()
            model.eval().to(memory_format=torch.contiguous_format)

    def _descend(
        self, model: nn.Module, teacher: nn.Module, generator: torch.Generator
    ) -> Iterator[int]:
        """Train; after each step, the number of steps made."""
        settings = self._settings
        optimiser = torch.optim.SGD(
            model.parameters(),
            settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov,
        )
        for step, index in enumerate(self._order(generator)):
            images = self._batch(index, generator)
            for group in optimiser.param_groups:
                group["lr"] = settings.rate(step)
            loss = objective(
                model,
                images,
                self._labels[index.to(self._device)],
                teacher=teacher,
                temperature=settings.temperature,
                share=settings.distillation,
                bfloat16=self._device.type == "cuda",
            )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
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
        (N, C, H, W) on the same device.
    """
    moved = augment(stored, splits.shift, splits.flip, generator)
    labels = torch.empty(len(moved), dtype=torch.int64)  # `Split` wants some; nobody reads them
    return splits.normalised(Split(moved, labels), stored.device, dtype)


def objective(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    teacher: Callable[[torch.Tensor], torch.Tensor] | None,
    temperature: float,
    share: float,
    label_smoothing: float = 0.0,
    bfloat16: bool = False,
) -> torch.Tensor:
    """The loss of one batch: of the labels and, where there is a teacher, of its outputs.

    Args:
        model: In train mode; returns (N, classes) logits.
        images: (N, C, H, W), normalised, on the model's device.
        labels: (N,) int64.
        teacher: A network in eval mode, or what else answers as one; None for labels only.
        temperature: See `distillation_loss`.
        share: See `distillation_loss`; 0 needs no teacher.
        label_smoothing: Share of the label that is spread over all classes.
        bfloat16: Whether both networks run in bfloat16 where autocast allows it; the loss itself
            is float32.
    """
    images = laid_out(images, model)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
        taught = None
        if teacher is not None and share > 0:
            with torch.no_grad():
                taught = teacher(images)
        logits = model(images)
    logits = logits.float()
    if taught is None:
        return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return distillation_loss(logits, taught.float(), labels, temperature, share, label_smoothing)


def distillation_loss(
    logits: torch.Tensor,
    taught: torch.Tensor,
    labels: torch.Tensor,
    temperature: float,
    share: float,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """`share * T^2 * KL(teacher || student) + (1 - share) * cross-entropy`, mean per image.

    Both networks' outputs are softened by T in the first term; T^2 keeps its gradient's size.

    Args:
        logits: (N, classes) of the student.
        taught: (N, classes) of the teacher.
        labels: (N,) int64.
        temperature: T > 0.
        share: in [0, 1].
        label_smoothing: share of the label that is spread over all classes, in [0, 1).
    """
    divergence = F.kl_div(
        F.log_softmax(logits / temperature, dim=1),
        F.log_softmax(taught / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    hard = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
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
