"""What a user implements to extend the package, as types.

Each is a callable, so a plain function does; a type checker compares its signature where it is
registered. How they are registered is written at `register_task`, `register_budget`,
`register_reward` and `register_importance`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from pruning_env.evaluation.importance.scores import Evidence
    from pruning_env.process.rewards import Outcome
    from pruning_env.tasks.data import Splits

__all__ = [
    "BudgetFunction",
    "BuildNetwork",
    "ImportanceFunction",
    "LoadData",
    "LoadWeights",
    "RewardFunction",
]


class RewardFunction(Protocol):
    """What a step earns; see `register_reward`."""

    def __call__(self, outcome: Outcome, /) -> Mapping[str, float]:
        """Summands by name: finite, and the same names whatever happened."""
        ...


class BudgetFunction(Protocol):
    """How much of something a network uses; see `register_budget`."""

    def __call__(self, model: nn.Module, /) -> float:
        """A finite amount, at least 0, in any unit; `model` is in eval mode and stays as it is."""
        ...


class ImportanceFunction(Protocol):
    """How much each channel matters; see `register_importance`."""

    def __call__(self, evidence: Evidence, /) -> NDArray[np.float64]:
        """(C,) finite scores, one per channel of `evidence.graph`; the lowest go first."""
        ...


class BuildNetwork(Protocol):
    """`Task.build`."""

    def __call__(self) -> nn.Module:
        """The network of a task, untrained."""
        ...


class LoadData(Protocol):
    """`Task.load_data`."""

    def __call__(self, data_root: str | None, /) -> Splits:
        """The images of a task; a root of None means the default, see `data.data_root`."""
        ...


class LoadWeights(Protocol):
    """`Task.load_weights`."""

    def __call__(self, module: nn.Module, weights: str | None, data_root: str | None, /) -> None:
        """Fill the network from the file `weights`; None means the task's own weights."""
        ...
