"""How each task's dense network is trained, and the accuracy that it must reach.

Settings only: nothing here trains. The accuracies are the goals of the published tables, not
measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pruning_env.evaluation.precision import PRECISIONS
from pruning_env.tasks.train import Recipe

__all__ = ["RECIPES", "BaseRecipe", "recipe_for"]


@dataclass(frozen=True)
class BaseRecipe(Recipe):
    """SGD with Nesterov momentum, linear warm-up, cosine decay to zero; see `Recipe`.

    `warmup=0.3` is the shape that is called one-cycle. `shift` is not read: the data set says how
    far its images may move.

    Attributes:
        label_smoothing: Share of the label that is spread over all classes.
        cutout: Side in pixels of the square that is blanked in every image; 0 for none
            (DeVries & Taylor 2017).
        ema: Decay per step of the average of the weights that is judged and kept; 0 for none.
        precision: Of the forward and backward pass: "bfloat16" by autocast, with weights, sums of
            the loss and steps in float32, or "float32".
        target: Test accuracy to reach, in [0, 1]; None where nothing is asked for.
    """

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.1
    warmup: float = 0.05
    label_smoothing: float = 0.0
    cutout: int = 0
    ema: float = 0.0
    precision: str = "bfloat16"
    target: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing={self.label_smoothing}: must be in [0, 1).")
        if self.cutout < 0:
            raise ValueError(f"cutout={self.cutout}: must be 0 or more pixels.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema={self.ema}: must be in [0, 1).")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r}: must be one of {PRECISIONS}.")


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
