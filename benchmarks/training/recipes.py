"""How each task's dense network is trained, and the accuracy that it must reach.

Settings only: nothing here trains. The accuracies are the goals of the published tables, not
measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pruning_env.evaluation.recovery.training import TrainingRecipe

__all__ = ["RECIPES", "BaseRecipe", "recipe_for"]


@dataclass(frozen=True)
class BaseRecipe(TrainingRecipe):
    """How a dense network is trained from scratch, without a teacher; see `TrainingRecipe`.

    Attributes:
        target: Test accuracy to reach, in [0, 1]; None where nothing is asked for.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    warmup: float = 0.05
    distillation: float = 0.0
    target: float | None = None


#: By task. Batch and rate are the usual 128 and 0.1 (He et al. 2016), the batch doubled with the
#: rate kept; cutout sides are those of DeVries & Taylor. Targets: the dense accuracies of
#: RL-Pruner's table (arXiv 2411.06463) on CIFAR-100.
RECIPES: Mapping[str, BaseRecipe] = MappingProxyType(
    {
        "cifar10-vgg11": BaseRecipe(cutout=16),
        "cifar10-vgg16": BaseRecipe(cutout=16, target=0.935),
        "cifar10-vgg19": BaseRecipe(cutout=16, target=0.935),
        "cifar10-resnet18": BaseRecipe(cutout=16, target=0.95),
        "cifar10-mobilenetv2": BaseRecipe(cutout=16),
        "cifar100-vgg19": BaseRecipe(cutout=8, label_smoothing=0.1, ema=0.998, target=0.729),
        "cifar100-resnet56": BaseRecipe(epochs=300, ema=0.998, target=0.7225),
        "cifar100-resnet50": BaseRecipe(cutout=8),
        "cifar100-densenet121": BaseRecipe(cutout=8, target=0.7983),
        "cifar100-googlenet": BaseRecipe(cutout=8, target=0.776),
        "cifar100-mobilenetv3": BaseRecipe(epochs=300, target=0.5618),
        "mnist-lenet5": BaseRecipe(epochs=20, batch_size=128, learning_rate=0.02),
    }
)


def recipe_for(task: str) -> BaseRecipe:
    """The recipe of a task; the defaults where none is written down."""
    return RECIPES.get(task, BaseRecipe())
