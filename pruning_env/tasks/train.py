"""Train a task's dense network from scratch: the script that made the weights in this package.

    python -m pruning_env.tasks.train --task digits-resnet8 --seed 0 --out digits.safetensors

Learns from search-train only and keeps the epoch that is best on search-val; test is read once, at
the end, for the row of JSON that is written beside the weights and says how they were made. The
same command gives the same bytes on the same kind of machine with the same number of torch threads,
which the row names; other sums of floats end in another network of the same quality. Knows nothing
of pruning.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import math
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from pruning_env.files import atomic_write
from pruning_env.tasks.data import Split, Splits
from pruning_env.tasks.registry import get_task, task_names

__all__ = ["Recipe", "Trained", "main", "train"]

# ResNet-20 on one CPU core is 2.5 times quicker so than with 1,024, which overflows the caches.
_EVALUATION_BATCH = 128


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum, linear warm-up, cosine decay to zero, shifted images.

    Attributes:
        seed: Seeds the initial weights, the order of the images and their shifts.
        epochs: Passes over search-train.
        batch_size: Images per step; the incomplete last batch of an epoch is left out.
        learning_rate: At its peak, after `warmup` of the steps.
        momentum: Nesterov momentum.
        weight_decay: L2 on all parameters.
        warmup: Share of the steps in which the learning rate rises.
        shift: Every image is moved by up to this share of its side, both ways, at random. An eighth
            is the 4 pixels of 32 that are usual on CIFAR.
    """

    seed: int = 0
    epochs: int = 60
    batch_size: int = 64
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warmup: float = 0.1
    shift: float = 0.125

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs={self.epochs}: must be 1 or more.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size={self.batch_size}: must be 2 or more (batch norm).")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate}: must be above 0.")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed={self.seed}: must be between 0 and 2**63 - 1.")

    def steps_per_epoch(self, images: int) -> int:
        """Whole batches in that many images.

        Raises:
            ValueError: There is none.
        """
        if images < self.batch_size:
            raise ValueError(
                f"batch_size={self.batch_size}: search-train has only {images} images."
            )
        return images // self.batch_size

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of step 0 <= `step` < `steps`, as a share of its peak."""
        rising = self.warmup * steps
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / (steps - rising))


@dataclass(frozen=True)
class Trained:
    """What `train` hands back.

    Attributes:
        state: The state dict of the chosen epoch, on the CPU.
        epoch: The chosen epoch, counted from 1.
        val_accuracy: Its accuracy on search-val, in [0, 1].
        val_loss: Its mean cross-entropy there.
    """

    state: dict[str, torch.Tensor]
    epoch: int
    val_accuracy: float
    val_loss: float


def train(
    model: nn.Module,
    splits: Splits,
    recipe: Recipe,
    *,
    device: str = "cpu",
    progress: bool = False,
    choose_epoch: bool = True,
) -> Trained:
    """Train `model` in place on search-train; the best epoch on search-val is handed back.

    Best means the highest accuracy, then the lowest loss, then the earliest. Without `choose_epoch`
    it is the last one, and search-val, which is judged once, has no say in the weights.

    Raises:
        ValueError: search-train is smaller than one batch.
        FloatingPointError: The training diverged.
    """
    count = len(splits.search_train)
    steps_per_epoch = recipe.steps_per_epoch(count)
    steps = recipe.epochs * steps_per_epoch
    model.to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.momentum > 0,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: recipe.rate(step, steps))
    source = splits.search_train
    margin = round(recipe.shift * source.images.shape[-1])
    # Padded before it is normalised: what moves in at the border is background, not the mean.
    border = Split(functional.pad(source.images, (margin,) * 4), source.labels)
    padded = splits.normalised(border, device)
    labels = source.labels.to(device)
    generator = torch.Generator().manual_seed(recipe.seed)

    best: Trained | None = None
    bar = tqdm(range(1, recipe.epochs + 1), desc="train", unit="epoch", disable=not progress)
    for epoch in bar:
        model.train()
        order = torch.randperm(count, generator=generator)
        for batch in order[: steps_per_epoch * recipe.batch_size].split(recipe.batch_size):
            images = shifted(padded, batch, margin, generator)
            loss = functional.cross_entropy(model(images), labels[batch.to(device)])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if not choose_epoch and epoch < recipe.epochs:
            continue
        accuracy, val_loss = evaluate(model, splits, splits.search_val, device=device)
        if not math.isfinite(val_loss):
            raise FloatingPointError(
                f"learning_rate={recipe.learning_rate}: training diverged in epoch {epoch}."
            )
        bar.set_postfix(search_val=f"{100 * accuracy:.2f} %")
        if best is None or (-accuracy, val_loss) < (-best.val_accuracy, best.val_loss):
            state = {name: t.detach().cpu().clone() for name, t in model.state_dict().items()}
            best = Trained(state, epoch, accuracy, val_loss)
    assert best is not None  # there is at least one epoch
    model.load_state_dict(best.state)
    return best


def evaluate(
    model: nn.Module, splits: Splits, split: Split, *, device: str = "cpu"
) -> tuple[float, float]:
    """Top-1 accuracy in [0, 1] and mean cross-entropy of `model`, in eval mode, on `split`."""
    model.eval()
    images = splits.normalised(split, device)
    labels = split.labels.to(device)
    with torch.inference_mode():
        logits = torch.cat([model(batch) for batch in images.split(_EVALUATION_BATCH)])
    accuracy = (logits.argmax(1) == labels).double().mean()
    return float(accuracy), float(functional.cross_entropy(logits, labels))


def shifted(
    padded: torch.Tensor, batch: torch.Tensor, margin: int, generator: torch.Generator
) -> torch.Tensor:
    """The images of `batch`, each cut out of its padded form at a random place."""
    height, width = padded.shape[2] - 2 * margin, padded.shape[3] - 2 * margin
    corner = torch.randint(0, 2 * margin + 1, (2, len(batch), 1), generator=generator)
    rows = (corner[0] + torch.arange(height)).to(padded.device)
    columns = (corner[1] + torch.arange(width)).to(padded.device)
    picked = batch.to(padded.device)
    # Indexing on both sides of the channel slice puts channels last; of one channel, only a copy
    # puts them back.
    cut = padded[picked[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


def _hardware(device: str) -> str:
    """What the run was made on, in words."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    used = f"{torch.get_num_threads()} torch threads"
    if torch.device(device).type == "cuda":
        used = torch.cuda.get_device_name(device)
    return f"{machine}, {used}"


def _usable_device(text: str) -> str:
    """Checked before anything is read or trained."""
    try:
        torch.empty(0, device=text)
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {str(error).splitlines()[0]}") from error
    return text


def _weights_path(text: str) -> Path:
    """The suffix says the format, so it may not say another one."""
    if not text.endswith(".safetensors"):
        raise argparse.ArgumentTypeError(f"{text!r}: must end in .safetensors")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    default = Recipe()
    parser = argparse.ArgumentParser(
        prog="python -m pruning_env.tasks.train",
        description="Train a task's network on search-train, choose the epoch on search-val, and "
        "write the weights (safetensors) and a JSON row that says how they were made.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--task", default="digits-resnet8", help=", ".join(task_names()))
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--data-root", help="folder of the data set")
    parser.add_argument("--device", type=_usable_device, default="cpu", help="cpu, cuda, cuda:1")
    parser.add_argument(
        "--out",
        type=_weights_path,
        help="a .safetensors file; None means runs/train/<task>-seed<seed>.safetensors",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; `arguments` default to those of the process."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = _parser()
    given = parser.parse_args(arguments)
    device: str = given.device
    out: Path = given.out or Path("runs", "train", f"{given.task}-seed{given.seed}.safetensors")
    try:
        task = get_task(given.task)
        recipe = Recipe(
            seed=given.seed,
            epochs=given.epochs,
            batch_size=given.batch_size,
            learning_rate=given.learning_rate,
        )
        splits = task.load_data(given.data_root)
        recipe.steps_per_epoch(len(splits.search_train))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = task.build()
    started = time.perf_counter()
    try:
        trained = train(model, splits, recipe, device=device, progress=True)
    except FloatingPointError as error:
        parser.error(str(error))
    seconds = time.perf_counter() - started
    test_accuracy, test_loss = evaluate(model, splits, splits.test, device=device)

    weights = save({name: t.contiguous() for name, t in trained.state.items()})
    row = {
        "task": task.name,
        "command": " ".join(["python -m pruning_env.tasks.train", *arguments]),
        "recipe": asdict(recipe),
        "chosen_epoch": trained.epoch,
        "splits": {
            "search_train": len(splits.search_train),
            "search_val": len(splits.search_val),
            "test": len(splits.test),
        },
        "val_accuracy": trained.val_accuracy,
        "val_loss": trained.val_loss,
        "test_accuracy": test_accuracy,
        "test_loss": test_loss,
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "torch": torch.__version__,
        "hardware": _hardware(device),
        "seconds": round(seconds, 1),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }
    atomic_write(out, weights)
    atomic_write(out.with_suffix(".json"), json.dumps(row, indent=2) + "\n")
    Console().print(
        f"epoch {trained.epoch}: search-val {100 * trained.val_accuracy:.2f} %, "
        f"test {100 * test_accuracy:.2f} % -> {out}",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    main()
