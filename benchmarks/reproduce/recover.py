"""Recovery of a pruned network: epochs of distillation, of which search-val chooses one.

Knows nothing of searches, budgets or tables; test is not read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from benchmarks.reproduce.specification import Recovery
from pruning_env.evaluation.metrics import Metrics
from pruning_env.evaluation.recovery.processes import Processes
from pruning_env.evaluation.recovery.training import Checkpoints, train_epochs
from pruning_env.tasks.data import Splits

__all__ = ["Recovered", "draw_anew", "filters_cut", "recover", "round_to_half"]


@dataclass(frozen=True)
class Recovered:
    """How a recovery went.

    Attributes:
        before: On search-val, before it.
        epoch: That was kept; 0 is the network as it came.
        precision: In which it ran.
    """

    before: Metrics
    epoch: int
    precision: str


def recover(
    model: nn.Module,
    teacher: nn.Module,
    splits: Splits,
    settings: Recovery,
    judge: Callable[[nn.Module], Metrics],
    *,
    seed: int,
    checkpoint: Path | None = None,
    answers: Path | None = None,
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
        checkpoint: Written after every epoch, and gone on from if it is there; None for none.
        answers: See `train_epochs`.
        progress: Whether to show a bar.
    """
    if settings.images is not None:
        fewer = splits.search_train.evenly_spaced(settings.images)
        splits = dataclasses.replace(splits, search_train=fewer)
    device = str(next(teacher.parameters()).device)
    trained = train_epochs(
        model,
        splits,
        settings.recipe(seed),
        teacher=teacher.to(memory_format=torch.channels_last),
        choose=judge,
        checkpoints=None if checkpoint is None else Checkpoints(checkpoint, every=1, resume=True),
        answers=answers,
        team=Processes(0, 1, device),
        progress=progress,
    )
    teacher.to(memory_format=torch.contiguous_format)
    assert trained.before is not None  # an epoch was chosen
    model.load_state_dict(trained.model.state_dict())
    return Recovered(trained.before, trained.epoch, trained.recipe.precision)


def draw_anew(model: nn.Module, seed: int) -> None:
    """Give a network fresh weights, in place, each layer by its own default initialisation.

    Raises:
        ValueError: A parameter belongs to a module that cannot be initialised.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
            elif next(module.parameters(recurse=False), None) is not None:
                raise ValueError(f"model: {name or 'it'} has parameters and no reset_parameters()")


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
