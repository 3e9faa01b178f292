"""Rewards: named functions from what a step did to a few summands.

The environment multiplies every summand by `reward_scale`, adds them up in order, and reports them
in `info["reward_terms"]`. All of them read search-val, never test. Knows nothing of actions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from pruning_env.arguments import check_choice, check_new_name
from pruning_env.plugins import load_plugins

if TYPE_CHECKING:
    from pruning_env.evaluation.metrics import Metrics
    from pruning_env.process.state import PruningState

# Published settings of RL-Pruner (arXiv 2411.06463): 0.25 in both its FLOPs- and its
# parameter-based reward.
RL_PRUNER_ALPHA = 0.25  # accuracy that cutting all MACs is worth
RL_PRUNER_BETA = 0.25  # accuracy that cutting all parameters is worth


@dataclass(frozen=True)
class Outcome:
    """What a reward may look at, for one step.

    A lazy reward judges only where an episode ends. At its other steps `before` and `after` are
    the same: the last metrics known, those of the state that the episode started from.

    Attributes:
        before: search-val metrics before the step.
        after: search-val metrics after it.
        dense: search-val metrics of the dense network.
        state: the whole state after it; `params`, `macs` and `usage` are ratios to dense.
        dense_params: parameters of the dense network.
        dense_macs: multiply-accumulates per image of the dense network.
        terminated: whether the step ended the episode.
    """

    before: Metrics
    after: Metrics
    dense: Metrics
    state: PruningState
    dense_params: int
    dense_macs: int
    terminated: bool


class RewardFunction(Protocol):
    """What a step earns; see `register_reward`."""

    def __call__(self, outcome: Outcome, /) -> Mapping[str, float]:
        """Summands by name: finite, and the same names whatever happened."""
        ...


F = TypeVar("F", bound=RewardFunction)


@dataclass(frozen=True)
class Reward:
    """A registered reward: its function, called as that is, and when it wants states judged.

    Attributes:
        function: says what a step earns.
        lazy: whether it needs no more than the judgement of an episode's last state. Then no other
            state is evaluated, and an episode costs one evaluation.
    """

    function: RewardFunction
    lazy: bool = False

    def __call__(self, outcome: Outcome) -> Mapping[str, float]:
        """The summands by name that the step earns."""
        return self.function(outcome)


_REWARDS: dict[str, Reward] = {}


def register_reward(name: str, *, lazy: bool = False) -> Callable[[F], F]:
    """Decorator: let `reward=name` choose the decorated function.

    The function gets an `Outcome` and returns its summands by name: finite floats, and the same
    names whatever happened.

    Args:
        name: the new value of `reward=`.
        lazy: whether only an episode's last state is judged; see `Reward` and `Outcome`.

    Raises:
        ValueError: the name is taken or empty.
    """
    check_new_name("name", name, _REWARDS)

    def add(function: F) -> F:
        _REWARDS[name] = Reward(function, lazy)
        return function

    return add


def reward_names() -> tuple[str, ...]:
    """The values that `reward=` accepts; those of plug-ins too."""
    load_plugins()
    return tuple(_REWARDS)


def get_reward(name: str) -> Reward:
    """The reward registered as `name`."""
    check_choice("reward", name, reward_names())
    return _REWARDS[name]


@register_reward("accuracy_change")
def accuracy_change(outcome: Outcome) -> dict[str, float]:
    """Change of accuracy in percentage points; an episode's sum is the whole loss or gain."""
    return {"accuracy_change": 100.0 * (outcome.after.accuracy - outcome.before.accuracy)}


@register_reward("accuracy")
def accuracy(outcome: Outcome) -> dict[str, float]:
    """Accuracy after the step, in [0, 1]."""
    return {"accuracy": outcome.after.accuracy}


@register_reward("rl_pruner")
def rl_pruner(outcome: Outcome) -> dict[str, float]:
    """RL-Pruner: top-1 + alpha * (share of MACs cut) + beta * (share of parameters cut)."""
    return {
        "accuracy": outcome.after.accuracy,
        "macs_cut": RL_PRUNER_ALPHA * (1.0 - outcome.state.macs),
        "params_cut": RL_PRUNER_BETA * (1.0 - outcome.state.params),
    }


@register_reward("amc")
def amc(outcome: Outcome) -> dict[str, float]:
    """AMC's accuracy-guaranteed protocol: -error * ln(MACs per image), error in [0, 1]."""
    macs = max(1.0, outcome.state.macs * outcome.dense_macs)
    return {"amc": -(1.0 - outcome.after.accuracy) * math.log(macs)}


@register_reward("final", lazy=True)
def final(outcome: Outcome) -> dict[str, float]:
    """Accuracy change against the dense network in percentage points, at the end; before, 0."""
    change = 100.0 * (outcome.after.accuracy - outcome.dense.accuracy)
    return {"final": change if outcome.terminated else 0.0}
