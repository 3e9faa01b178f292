"""Recovery of a pruned network: epochs of distillation, of which search-val chooses one.

Knows nothing of searches, budgets or tables; test is not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.reproduce.cells import Recovery
from pruning_env.evaluation.metrics import Metrics
from pruning_env.evaluation.recovery.finetuning import FineTuner, FineTuning
from pruning_env.tasks.data import Splits

__all__ = ["Recovered", "filters_cut", "recover", "round_to_half"]


@dataclass(frozen=True)
class Recovered:
    """How a recovery went.

    Attributes:
        before: On search-val, before it.
        epoch: That was kept; 0 is the network as it came.
    """

    before: Metrics
    epoch: int


def recover(
    model: nn.Module,
    teacher: nn.Module,
    splits: Splits,
    settings: Recovery,
    judge: Callable[[nn.Module], Metrics],
    *,
    seed: int,
    progress: bool = False,
) -> Recovered:
    """Train `model` in place and leave it as it was after its best epoch on search-val.

    Best is the higher accuracy, then the lower loss, then the earlier; the network as it came takes
    part, as in RL-Pruner's post-training.

    Args:
        model: The pruned network, on the teacher's device.
        teacher: The dense network, in eval mode.
        splits: Of which search-train is learned.
        settings: See there.
        judge: Of a network in eval mode, on search-val.
        seed: Of order, augmentation and dropout.
        progress: Whether to show a bar.
    """
    images = splits.search_train
    if settings.images is not None:
        images = images.evenly_spaced(settings.images)
        splits = dataclasses.replace(splits, search_train=images)
    per_epoch = max(1, len(images) // settings.batch_size)
    tuning = FineTuning(
        steps=settings.epochs * per_epoch,
        lr=settings.lr,
        batch_size=settings.batch_size,
        warmup=settings.warmup_epochs * per_epoch,
        nesterov=True,
    )
    before = judge(model.eval())
    best, epoch, state = before, 0, _copy(model)
    with tqdm(total=settings.epochs, desc="recovery", unit="epoch", disable=not progress) as bar:

        def watch(step: int) -> None:
            nonlocal best, epoch, state
            seen = judge(model)
            bar.update()
            bar.set_postfix(search_val=f"{100 * seen.accuracy:.2f} %")
            if (seen.accuracy, -seen.loss) > (best.accuracy, -best.loss):
                best, epoch, state = seen, step // per_epoch, _copy(model)

        tuner = FineTuner(teacher, splits, tuning, torch.float32)
        tuner.train(model, seed, every=per_epoch, watch=watch)
    model.load_state_dict(state)
    return Recovered(before, epoch)


def round_to_half(model: nn.Module) -> None:
    """Round all weights to what half precision can hold, in place; they stay float32.

    Vectors (biases, and what batch norm keeps, whose variances half precision would lose) are left
    as they are: they take next to no room.
    """
    with torch.no_grad():
        for tensor in model.parameters():
            if tensor.ndim > 1:
                tensor.copy_(tensor.half())


def filters_cut(dense: nn.Module, pruned: nn.Module) -> float:
    """Share of filters and neurons removed, in [0, 1): what RL-Pruner calls sparsity.

    Counted are the outputs of all convolutions and linear layers but the last, which is the
    classifier. Depthwise convolutions, whose filters come and go with their inputs, are left out.
    """
    names = [
        name
        for name, module in dense.named_modules()
        if isinstance(module, nn.Linear)
        or (isinstance(module, nn.Conv2d) and (module.groups == 1 or module.in_channels == 1))
    ]

    def count(network: nn.Module) -> int:
        modules = dict(network.named_modules())
        return sum(modules[name].weight.shape[0] for name in names[:-1])

    return 1 - count(pruned) / count(dense)


def _copy(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
