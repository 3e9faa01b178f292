"""Training by epochs, of dense networks from scratch and of pruned ones with a teacher.

Images and augmentation stay on the device; a run that was killed goes on from its checkpoint as it
would have; any number of processes may share it. Learns from search-train only. Test is not read
here. Knows nothing of channel graphs, budgets or searches.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from pruning_env.evaluation.gradients import gradient_layout
from pruning_env.evaluation.metrics import Metrics, measure
from pruning_env.evaluation.precision import TRAINING_PRECISIONS, training_precision
from pruning_env.evaluation.recovery.answers import KeptAnswers
from pruning_env.evaluation.recovery.finetuning import objective, training_images
from pruning_env.evaluation.recovery.processes import ALONE, Processes
from pruning_env.files import atomic_path
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.train import Recipe

__all__ = ["Checkpoints", "Trained", "TrainingRecipe", "cutout", "judge", "train_epochs"]

# Large enough to fill a GPU with 32 x 32 images; a CPU's caches want fewer.
_EVALUATION_BATCH = {"cuda": 1000, "cpu": 128}


@dataclass(frozen=True)
class TrainingRecipe(Recipe):
    """SGD with Nesterov momentum, linear warm-up, cosine decay to zero; see `Recipe`.

    `warmup=0.3` is the shape that is called one-cycle. `shift` is not read: the data set says how
    far its images may move.

    Attributes:
        label_smoothing: Share of the label that is spread over all classes, in the part of the
            loss that the labels have.
        cutout: Side in pixels of the square that is blanked in every image; 0 for none
            (DeVries & Taylor 2017).
        ema: Decay per step of the average of the weights that is judged and kept; 0 for none.
        precision: Of the forward and backward pass: "bfloat16" by autocast, with weights, sums of
            the loss and steps in float32, "float32", or "auto": the quicker on the device.
        distillation: Share of the loss that a teacher's outputs have, in [0, 1]; nothing without a
            teacher.
        temperature: T > 0, by which both networks' logits are divided in that share.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float = 0.05
    label_smoothing: float = 0.0
    cutout: int = 0
    ema: float = 0.0
    precision: str = "auto"
    distillation: float = 0.75
    temperature: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: must be in [0, 1).")
        if self.cutout < 0:
            raise ValueError(f"cutout={self.cutout}: must be 0 or more pixels.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema}: must be in [0, 1).")
        if self.precision not in TRAINING_PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: must be one of {TRAINING_PRECISIONS}.")
        if not 0 <= self.distillation <= 1:
            raise ValueError(f"distillation={self.distillation}: must be in [0, 1].")
        if not self.temperature > 0:
            raise ValueError(f"temperature={self.temperature}: must be above 0.")


@dataclass(frozen=True)
class Checkpoints:
    """Where a run's state is kept, and whether to start from it.

    Attributes:
        path: The file.
        every: Epochs between two of them, at least 1.
        resume: Go on from the file if it is there.
        source: Names what is trained, such as a hash of the weights that it starts from; a
            checkpoint of another source is refused.
    """

    path: Path
    every: int = 10
    resume: bool = False
    source: str = ""


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        model: In eval mode: the network, or the average of its weights.
        epoch: Whose weights it has; 0 is the network as it came.
        before: On search-val, of the network as it came; None where no epoch was chosen.
        recipe: As it ran: with the precision that "auto" means on the device.
    """

    model: nn.Module
    epoch: int
    before: Metrics | None
    recipe: TrainingRecipe


def train_epochs(
    model: nn.Module,
    splits: Splits,
    recipe: TrainingRecipe,
    *,
    teacher: nn.Module | None = None,
    choose: Callable[[nn.Module], Metrics] | None = None,
    checkpoints: Checkpoints | None = None,
    answers: Path | None = None,
    team: Processes = ALONE,
    watch: Callable[[int, Metrics], None] | None = None,
    progress: bool = False,
) -> Trained:
    """Train `model` in place, on its own or by distillation, and say which epoch was kept.

    Order, augmentation and dropout of an epoch depend on the seed and the epoch alone, so that a
    run that was killed goes on as it would have (bit for bit where the device's kernels are
    deterministic).

    Args:
        model: Equal in all processes; moved to the device and changed.
        splits: search-train is learned, search-val is watched.
        recipe: Batch size is that of all processes together.
        teacher: Whose outputs are learned beside the labels (Hinton et al. 2015), in eval mode on
            the device; None for labels only.
        choose: Judges a network in eval mode after each epoch, and the network as it came; the
            best is kept: the higher accuracy, then the lower loss, then the earlier. None keeps
            the last epoch, and leaves search-val unseen.
        checkpoints: Written by the first process; None for none.
        answers: Folder in which the teacher's answers are kept for other students of the same
            teacher, data and seed (bit for bit; 0.9 MB per epoch of 45,000 images and ten
            classes); None to ask it anew.
        team: This process and the others.
        watch: Called with the number of epochs made and what was seen then, where it was judged.
        progress: Whether the first process shows a bar.

    Raises:
        ValueError: search-train is smaller than a batch, or the checkpoint is of another recipe.
        FloatingPointError: The training diverged.
    """
    device = torch.device(team.device)
    precision = training_precision(recipe.precision, device)
    recipe = dataclasses.replace(recipe, precision=precision)
    lessons = _Lessons(splits, recipe, teacher, team, answers)
    # Both copies must be made before the optimiser refers to the parameters.
    model.to(device).to(memory_format=gradient_layout(model))
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
    kept = model if average is None else average.module
    best = None if choose is None else _Best(kept, choose)
    keeper = _Keeper(checkpoints, recipe, model, average, optimizer, best)
    begun = keeper.load()
    if best is not None and begun == 0:
        best.offer(0)
    wrapped = team.wrap(model)
    bar = tqdm(
        range(begun, recipe.epochs),
        desc="train",
        unit="epoch",
        initial=begun,
        total=recipe.epochs,
        disable=not progress or team.rank > 0,
    )
    # cuDNN tries its kernels once: all batches are of one shape.
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True),
    ):
        for epoch in bar:
            lessons.epoch(wrapped, model, average, optimizer, epoch)
            done = epoch + 1
            due = keeper.due(done) or done == recipe.epochs
            if team.rank == 0 and (best is not None or due):
                kept.eval()
                seen = judge(kept, splits, splits.search_val, device) if best is None else None
                seen = best.offer(done) if best is not None else seen
                assert seen is not None
                if not math.isfinite(seen.loss) or not _finite(model):
                    raise FloatingPointError(
                        f"learning_rate={recipe.learning_rate}: training diverged by epoch {done}."
                    )
                bar.set_postfix(search_val=f"{100 * seen.accuracy:.2f} %")
                if watch is not None:
                    watch(done, seen)
                if due:
                    keeper.save(done)
            team.wait()
    optimizer.zero_grad(set_to_none=True)
    if best is not None:
        kept.load_state_dict(best.state)
    kept.eval().to(memory_format=torch.contiguous_format)
    if best is None:
        return Trained(kept, recipe.epochs, None, recipe)
    return Trained(kept, best.epoch, best.before, recipe)


class _Lessons:
    """What is learned in an epoch: the batches, in their order, and how each is answered."""

    def __init__(
        self,
        splits: Splits,
        recipe: TrainingRecipe,
        teacher: nn.Module | None,
        team: Processes,
        answers: Path | None,
    ) -> None:
        self._splits, self._recipe, self._teacher, self._team = splits, recipe, teacher, team
        self._kept = None
        if answers is not None and teacher is not None and recipe.distillation > 0:
            self._kept = KeptAnswers(answers, teacher, _questions(splits, recipe, team))
        self._device = torch.device(team.device)
        source = splits.search_train
        self._per_epoch = recipe.steps_per_epoch(len(source))
        self._steps = recipe.epochs * self._per_epoch
        self._data = Split(source.images.to(self._device), source.labels.to(self._device))

    def epoch(
        self,
        wrapped: nn.Module,
        model: nn.Module,
        average: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
        epoch: int,
    ) -> None:
        recipe, team, data = self._recipe, self._team, self._data
        # One permutation for all processes, and changes to the images for each of them.
        shared = torch.Generator().manual_seed(_seed(recipe.seed, epoch, 0))
        own = torch.Generator().manual_seed(_seed(recipe.seed, epoch, 1 + team.rank))
        order = torch.randperm(len(data), generator=shared)[: self._per_epoch * recipe.batch_size]
        wrapped.train()
        devices = [self._device] if self._device.type == "cuda" else []
        taught = nullcontext(self._teacher) if self._kept is None else self._kept.epoch(epoch)
        with taught as teacher, torch.random.fork_rng(devices=devices):
            torch.manual_seed(_seed(recipe.seed, epoch, 1 + team.rank))  # dropout
            for number, batch in enumerate(order.split(recipe.batch_size)):
                done = epoch * self._per_epoch + number
                for group in optimizer.param_groups:
                    group["lr"] = recipe.learning_rate * recipe.rate(done, self._steps)
                index = team.share(batch).to(self._device)
                images = training_images(self._splits, data.images[index], own)
                loss = objective(
                    wrapped,
                    cutout(images, recipe.cutout, own),
                    data.labels[index],
                    teacher=teacher,
                    temperature=recipe.temperature,
                    share=recipe.distillation,
                    label_smoothing=recipe.label_smoothing,
                    bfloat16=recipe.precision == "bfloat16",
                )
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                if average is not None:
                    average.update_parameters(model)


def _questions(splits: Splits, recipe: TrainingRecipe, team: Processes) -> str:
    """What decides which images a teacher sees in an epoch, in which order, and how it runs."""
    source = splits.search_train
    data = hashlib.sha256(source.images.contiguous().numpy().tobytes()).hexdigest()
    recipes = (recipe.seed, recipe.batch_size, recipe.cutout, recipe.precision)
    changes = (splits.shift, splits.flip, splits.mean, splits.std)
    return repr((data, recipes, changes, team.device, team.rank, team.world))


class _Best:
    """The best state of a network so far, by a judge."""

    def __init__(self, model: nn.Module, choose: Callable[[nn.Module], Metrics]) -> None:
        self._model, self._choose = model, choose
        self.epoch = 0
        self.state: dict[str, torch.Tensor] = {}
        self.before: Metrics | None = None
        self._seen: Metrics | None = None

    def offer(self, epoch: int) -> Metrics:
        """Judge the network as it is after `epoch`; remember it if it is better."""
        seen = self._choose(self._model.eval())
        if self._seen is None:
            self.before = seen
        if self._seen is None or _order(seen) > _order(self._seen):
            self._seen, self.epoch = seen, epoch
            state = self._model.state_dict()
            self.state = {name: tensor.detach().clone() for name, tensor in state.items()}
        return seen

    def state_dict(self) -> dict[str, Any]:
        assert self.before is not None and self._seen is not None
        return {
            "epoch": self.epoch,
            "state": self.state,
            "before": dataclasses.asdict(self.before),
            "seen": dataclasses.asdict(self._seen),
        }

    def load_state_dict(self, stored: dict[str, Any]) -> None:
        self.epoch, self.state = stored["epoch"], stored["state"]
        self.before, self._seen = Metrics(**stored["before"]), Metrics(**stored["seen"])


def _order(seen: Metrics) -> tuple[float, float]:
    return seen.accuracy, -seen.loss


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
        checkpoints: Checkpoints | None,
        recipe: TrainingRecipe,
        model: nn.Module,
        average: AveragedModel | None,
        optimizer: torch.optim.Optimizer,
        best: _Best | None,
    ) -> None:
        self._checkpoints = checkpoints
        self._recipe = dataclasses.asdict(recipe)
        self._source = "" if checkpoints is None else checkpoints.source
        self._parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
        if average is not None:
            self._parts["average"] = average
        if best is not None:
            self._parts["best"] = best

    def due(self, epochs: int) -> bool:
        """Whether a checkpoint is to be written after so many epochs."""
        return self._checkpoints is not None and epochs % self._checkpoints.every == 0

    def save(self, epochs: int) -> None:
        if self._checkpoints is None:
            return
        state = {name: part.state_dict() for name, part in self._parts.items()}
        # Given a path, torch refuses some names; a file it takes.
        with (
            atomic_path(self._checkpoints.path) as temporary,
            temporary.open("wb") as file,
        ):
            about = {"epochs": epochs, "recipe": self._recipe, "source": self._source}
            torch.save({**state, **about}, file)

    def load(self) -> int:
        """Epochs that were made; 0 where there is no file, or none is asked for."""
        if self._checkpoints is None or not self._checkpoints.resume:
            return 0
        path = self._checkpoints.path
        if not path.is_file():
            return 0
        stored = torch.load(path, map_location="cpu", weights_only=True)
        odd = [name for name, value in self._recipe.items() if stored["recipe"].get(name) != value]
        if odd:
            there = ", ".join(f"{name}={stored['recipe'].get(name)!r}" for name in odd)
            here = ", ".join(f"{name}={self._recipe[name]!r}" for name in odd)
            raise ValueError(
                f"resume: {path} was made with {there}, not with {here}; give the same "
                "settings, or leave --resume out"
            )
        if stored["source"] != self._source:
            raise ValueError(
                f"resume: {path} is of the training of another network; leave --resume out"
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
