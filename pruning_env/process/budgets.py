"""Budgets: limits on parameters, MACs, filters, latency, or any function of the pruned model.

`params`, `macs` and `filters` are exact and closed-form from the channel graph; `latency` is timed
beside the dense model; any other budget is a registered black box that is shown the pruned model.
All are ratios to the dense network. Knows nothing of rewards or episodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, overload

import numpy as np

from pruning_env.arguments import check_choice, check_fraction, check_new_name
from pruning_env.evaluation.latency import latency_ratio
from pruning_env.evaluation.runtimes import Runtime
from pruning_env.plugins import load_plugins
from pruning_env.process.filters import filters_at

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pruning_env.graph.channel_graph import ChannelGraph


class BudgetFunction(Protocol):
    """How much of something a network uses; see `register_budget`."""

    def __call__(self, model: nn.Module, /) -> float:
        """A finite amount, at least 0, in any unit; `model` is in eval mode and stays as it is."""
        ...


F = TypeVar("F", bound=BudgetFunction)
DEFAULT_BUDGET = {"params": 0.25}

_CLOSED_FORM: dict[str, Callable[[ChannelGraph, np.ndarray], float]] = {
    "params": lambda graph, keep: float(graph.params(keep)),
    "macs": lambda graph, keep: float(graph.macs(keep)),
    "filters": lambda graph, keep: float(filters_at(graph, np.asarray(graph.counts(keep)))),
}
_MEASURED: dict[str, BudgetFunction] = {}


def latency(
    dense: nn.Module,
    pruned: nn.Module,
    images: torch.Tensor,
    limit: float | None = None,
    runtime: Runtime = Runtime(),  # noqa: B008  frozen
) -> float:
    """Time of `pruned` / time of `dense` on this machine, as it is now, for one batch: at most.

    The first of `images` make the batch. Both models are timed in turns in one call, so that a
    slower or busier machine slows both. It is a measurement even so, and no two runs give the same
    number; what counts is the upper end of the interval that its spread leaves, so that a network
    that is said to meet `limit` does. See `latency_ratio`.
    """
    with runtime.ready([dense, pruned], images, many=True) as ((whole, part), batch):
        return latency_ratio(whole, part, batch, limit=limit).high


_COMPARED: dict[str, Callable[[nn.Module, nn.Module, torch.Tensor, float, Runtime], float]] = {
    "latency": latency
}


@overload
def register_budget(name: str) -> Callable[[F], F]: ...


@overload
def register_budget(name: str, function: F) -> F: ...


def register_budget(name: str, function: F | None = None) -> F | Callable[[F], F]:
    """Let `budget={name: limit}` bound `function(pruned_model)`.

    Without `function` it is a decorator, as `register_reward` and `register_importance` are.

    Args:
        name: the new key of `budget`.
        function: takes the pruned and recovered model in eval mode, which it may not change;
            returns a finite number, at least 0, in any unit: only its ratio to the dense model's
            value counts. It is called once for the dense model and once per step; where the
            constraint looks for the step that meets the budgets, once for the smallest network and
            a few times more. Fewer channels must not use more then, and a limit that the smallest
            exceeds is refused. With `recovery="finetune"` every model that it is shown is trained
            first. If it is not deterministic, neither is the environment: let it return the most
            that its noise leaves open.

    Returns:
        `function`, or the decorator.

    Raises:
        ValueError: the name is taken or empty, or `function` cannot be called.
    """
    check_new_name("name", name, _names())

    def add(measure: F) -> F:
        if not callable(measure):
            raise ValueError(f"function={measure!r} is not allowed; give a function of the model")
        _MEASURED[name] = measure
        return measure

    return add if function is None else add(function)


def budget_names() -> tuple[str, ...]:
    """The keys that `budget=` accepts; those of plug-ins too."""
    load_plugins()
    return _names()


def _names() -> tuple[str, ...]:
    return (*_CLOSED_FORM, *_COMPARED, *_MEASURED)


@dataclass(frozen=True)
class Budget:
    """One bound: at most `limit` (a ratio to the dense network, in (0, 1]) of `name`."""

    name: str
    limit: float

    @property
    def closed_form(self) -> bool:
        """Whether the graph alone gives the amount, exactly and without building a model."""
        return self.name in _CLOSED_FORM

    @property
    def compared(self) -> bool:
        """Whether only a comparison with the dense model gives the ratio: `compare`."""
        return self.name in _COMPARED

    def compare(
        self, dense: nn.Module, pruned: nn.Module, images: torch.Tensor, runtime: Runtime
    ) -> float:
        """What `pruned` uses / what `dense` does, both in eval mode, on (N, ...) `images`.

        The upper end of what the measurement leaves open, so that the limit is met if it says so.
        """
        return _COMPARED[self.name](dense, pruned, images, self.limit, runtime)

    def measure(
        self, graph: ChannelGraph, keep: np.ndarray, model: Callable[[], nn.Module]
    ) -> float:
        """The amount that the network `keep` (C,) uses, in the budget's own unit.

        `model` builds that network; it is called only where the closed form does not do. Not for
        budgets that are `compared`.
        """
        if self.closed_form:
            return _CLOSED_FORM[self.name](graph, keep)
        network = model()
        try:
            amount = float(_MEASURED[self.name](network))
        except Exception as error:  # it is the user's, and may fail in any way
            raise RuntimeError(
                f"budget function {self.name!r} raised {type(error).__name__}: {error}; "
                "it must return a finite number, at least 0"
            ) from error
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(
                f"budget function {self.name!r} returned {amount!r}; "
                "it must return a finite number, at least 0"
            )
        return amount

    def excess(self, usage: float) -> float:
        """How far `usage` (a ratio) is above the limit; 0 when the budget is met."""
        return max(0.0, usage - self.limit)


def parse_budget(budget: Mapping[str, float] | None) -> tuple[Budget, ...]:
    """Check a `budget` argument; `None` means `DEFAULT_BUDGET`.

    Raises:
        ValueError: not a mapping, empty, an unknown key, or a limit outside (0, 1].
    """
    given: Any = DEFAULT_BUDGET if budget is None else budget
    if not isinstance(given, Mapping) or not given:
        raise ValueError(
            f"budget={budget!r} is not allowed; give a non-empty dict of limits in (0, 1] with "
            f"keys from: {', '.join(sorted(budget_names()))}"
        )
    for name in given:
        check_choice("budget key", name, budget_names())
    return tuple(
        Budget(name, check_fraction(f"budget[{name!r}]", limit)) for name, limit in given.items()
    )
