"""The training loop: images and augmentation on the device, checkpoints, any number of processes.

Learns from search-train only and hands back the weights of the last epoch (or their average), so
that nothing is chosen by search-val, and search-val stays unseen. Test is not read here. Knows
nothing of tasks, files of weights or pruning.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from benchmarks.training.parallel import Processes
from benchmarks.training.recipes import BaseRecipe
from pruning_env.evaluation.metrics import Metrics, measure
from pruning_env.evaluation.recovery.finetuning import training_images
from pruning_env.files import atomic_path
from pruning_env.tasks.data import Split, Splits

__all__ = ["Checkpoints", "cutout", "judge", "train_base"]

# Large enough to fill a GPU with 32 x 32 images; a CPU's caches want fewer.
_EVALUATION_BATCH = {"cuda": 1000, "cpu": 128}


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's state is kept, and whether to start from it.

    Attributes:
        path: The file.
        every: Epochs between two of them.
        resume: Go on from the file if it is there.
    """

    path: Path
    every: int = 10
    resume: bool = False


def train_base(
    model: nn.Module,
    splits: Splits,
    recipe: BaseRecipe,
    *,
    team: Processes,
    checkpoints: Checkpoints,
    progress: bool = False,
) -> nn.Module:
    """Train `model`, which is moved to the device and changed; return the network to keep.

    Order, augmentation and dropout of an epoch depend on the seed and the epoch alone, so that a
    run that was killed goes on as it would have (bit for bit where the device's kernels are
    deterministic).

    Args:
        model: Untrained, equal in all processes.
        splits: search-train is learned, search-val is watched.
        recipe: Batch size is that of all processes together.
        team: This process and the others.
        checkpoints: Written by the first process.
        progress: Whether the first process shows a bar.

    Returns:
        `model`, or the average of its weights, in eval mode.

    Raises:
        ValueError: search-train is smaller than a batch, or the checkpoint is of another recipe.
        FloatingPointError: The training diverged.
    """
    device = torch.device(team.device)
    steps = recipe.epochs * recipe.steps_per_epoch(len(splits.search_train))
    # Both copies must be made before the optimiser refers to the parameters.
    model.to(device).to(memory_format=torch.channels_last)
    average = None
    if recipe.ema:
        multi = get_ema_multi_avg_fn(recipe.ema)
        average = AveragedModel(model, multi_avg_fn=multi, use_buffers=True)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    keeper = _Keeper(checkpoints, recipe, model, average, optimizer)
    begun = keeper.load() if checkpoints.resume else 0
    kept = model if average is None else average.module
    wrapped = team.wrap(model)
    data = Split(splits.search_train.images.to(device), splits.search_train.labels.to(device))
    bar = tqdm(
        range(begun, recipe.epochs),
        desc="train",
        unit="epoch",
        initial=begun,
        total=recipe.epochs,
        disable=not progress or team.rank > 0,
    )
    # cuDNN tries its kernels once: all batches are of one shape.
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        for epoch in bar:
            _epoch(wrapped, model, average, optimizer, splits, data, recipe, team, epoch, steps)
            done = epoch + 1
            if done % checkpoints.every and done != recipe.epochs:
                continue
            if team.rank == 0:
                seen = judge(kept, splits, splits.search_val, device)
                if not math.isfinite(seen.loss) or not _finite(model):
                    raise FloatingPointError(
                        f"learning_rate={recipe.learning_rate}: training diverged by epoch {done}."
                    )
                bar.set_postfix(search_val=f"{100 * seen.accuracy:.2f} %")
                keeper.save(done)
            team.wait()
    return kept.eval()


def _epoch(
    wrapped: nn.Module,
    model: nn.Module,
    average: AveragedModel | None,
    optimizer: torch.optim.Optimizer,
    splits: Splits,
    data: Split,
    recipe: BaseRecipe,
    team: Processes,
    epoch: int,
    steps: int,
) -> None:
    device = torch.device(team.device)
    # One permutation for all processes, and changes to the images for each of them.
    shared = torch.Generator().manual_seed(_seed(recipe.seed, epoch, 0))
    own = torch.Generator().manual_seed(_seed(recipe.seed, epoch, 1 + team.rank))
    per_epoch = recipe.steps_per_epoch(len(data))
    order = torch.randperm(len(data), generator=shared)[: per_epoch * recipe.batch_size]
    wrapped.train()
    on_gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.manual_seed(_seed(recipe.seed, epoch, 1 + team.rank))  # dropout
        for number, batch in enumerate(order.split(recipe.batch_size)):
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * recipe.rate(epoch * per_epoch + number, steps)
            index = team.share(batch).to(device)
            images = cutout(training_images(splits, data.images[index], own), recipe.cutout, own)
            bfloat16 = recipe.precision == "bfloat16"
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                logits = wrapped(images)
            loss = functional.cross_entropy(
                logits.float(), data.labels[index], label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)


def cutout(images: torch.Tensor, side: int, generator: torch.Generator) -> torch.Tensor:
    """Blank a square at a random place in every image (DeVries & Taylor 2017).

    The centre lies anywhere in the image, so part of the square may be outside.

    Args:
        images: (N, C, H, W) normalised, so that 0 is the mean; changed in place.
        side: Of the square, in pixels; 0 for none.
        generator: A CPU generator.
    """
    if not side:
        return images
    count, _, height, width = images.shape
    inside = []
    for size in (height, width):
        centre = torch.randint(0, size, (count, 1), generator=generator).to(images.device)
        offset = torch.arange(size, device=images.device) - centre
        inside.append((offset >= -(side // 2)) & (offset < side - side // 2))
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill_(square, 0)


def judge(model: nn.Module, splits: Splits, split: Split, device: torch.device) -> Metrics:
    """Accuracy and loss of `model`, left in eval mode, on `split`, in float32."""
    images = splits.normalised(split, device).contiguous(memory_format=torch.channels_last)
    size = _EVALUATION_BATCH.get(device.type, 256)
    return measure(model.eval(), images, split.labels.to(device), size)


class _Keeper:
    """Writes and reads the state of a run; the file holds tensors and numbers only."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        recipe: BaseRecipe,
        model: nn.Module,
        average: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._path = checkpoints.path
        self._recipe = dataclasses.asdict(recipe)
        self._parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
        if average is not None:
            self._parts["average"] = average

    def save(self, epochs: int) -> None:
        state = {name: part.state_dict() for name, part in self._parts.items()}
        # Given a path, torch refuses some names; a file it takes.
        with atomic_path(self._path) as temporary, temporary.open("wb") as file:
            torch.save({**state, "epochs": epochs, "recipe": self._recipe}, file)

    def load(self) -> int:
        """Epochs that were made; 0 where there is no file."""
        if not self._path.is_file():
            return 0
        stored = torch.load(self._path, map_location="cpu", weights_only=True)
        odd = [name for name, value in self._recipe.items() if stored["recipe"].get(name) != value]
        if odd:
            there = ", ".join(f"{name}={stored['recipe'].get(name)!r}" for name in odd)
            here = ", ".join(f"{name}={self._recipe[name]!r}" for name in odd)
            raise ValueError(
                f"resume: {self._path} was made with {there}, not with {here}; give the same "
                "settings, or leave --resume out"
            )
        for name, part in self._parts.items():
            part.load_state_dict(stored[name])
        return int(stored["epochs"])


def _seed(seed: int, epoch: int, stream: int) -> int:
    """One seed out of three numbers; equal only for equal ones in any run that ends."""
    return (seed * 1_000_003 + epoch) * 1_009 + stream


def _finite(model: nn.Module) -> bool:
    """Whether all weights are numbers; the loss alone is capped."""
    return all(bool(parameter.isfinite().all()) for parameter in model.parameters())
