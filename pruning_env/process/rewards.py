"""Rewards: named functions from what a step did to a few summands.

The environment multiplies every summand by `reward_scale`, adds them up in order, and reports them
in `info["reward_terms"]`. All of them read search-val, never test. Knows nothing of actions.

What the built-in ones pay in an episode depends on where it ends and not on the way there: they are
differences of a potential (Ng, Harada and Russell, "Policy invariance under reward
transformations", 1999) or paid at the end. Paid per step, long episodes would earn more. Accuracies
count as fractions, so that returns are about 1.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from pruning_env.arguments import check_choice, check_finite, check_new_name
from pruning_env.plugins import load_plugins

if TYPE_CHECKING:
    from pruning_env.evaluation.metrics import Metrics
    from pruning_env.process.state import PruningState

UNMET = "unmet"
"""The summand by which an episode pays for a budget that it leaves unmet."""


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
        previous: the whole state before it.
        dense_params: parameters of the dense network.
        dense_macs: multiply-accumulates per image of the dense network.
        terminated: whether the step ended the episode.
    """

    before: Metrics
    after: Metrics
    dense: Metrics
    state: PruningState
    previous: PruningState
    dense_params: int
    dense_macs: int
    terminated: bool


class RewardFunction(Protocol):
    """What a step earns; see `register_reward`."""

    def __call__(self, outcome: Outcome, /) -> Mapping[str, float]:
        """Summands by name: finite, and the same names whatever happened."""
        ...


F = TypeVar("F", bound=Callable[..., Mapping[str, float]])


@dataclass(frozen=True)
class Reward:
    """A registered reward: its function, called as that is, and when it wants states judged.

    Attributes:
        function: says what a step earns.
        lazy: whether it needs no more than the judgement of an episode's last state. Then no other
            state is evaluated, and an episode costs one evaluation.
        unmet: price of an episode's end with a budget unmet; see `unmet_budgets`.
    """

    function: RewardFunction
    lazy: bool = False
    unmet: float = 1.0

    def __call__(self, outcome: Outcome) -> Mapping[str, float]:
        """The summands by name that the step earns."""
        return self.function(outcome)


_REWARDS: dict[str, Reward] = {}


def register_reward(name: str, *, lazy: bool = False, unmet: float = 1.0) -> Callable[[F], F]:
    """Decorator: let `reward=name` choose the decorated function.

    The function gets an `Outcome` and returns its summands by name: finite floats, and the same
    names whatever happened. Further parameters are numbers with a default, which
    `reward_arguments` can set.

    Args:
        name: the new value of `reward=`.
        lazy: whether only an episode's last state is judged; see `Reward` and `Outcome`.
        unmet: what an episode pays that ends with a budget unmet, and as much again times its
            excess. At least the most by which returns of episodes differ, or it may pay best to
            prune nothing; 0 for a reward that sees to that itself.

    Raises:
        ValueError: the name is taken or empty, or `unmet` is no number of at least 0.
    """
    check_new_name("name", name, _REWARDS)
    if not check_finite("unmet", unmet) >= 0.0:
        raise ValueError(f"unmet={unmet!r} is not allowed; give a number of at least 0")

    def add(function: F) -> F:
        _REWARDS[name] = Reward(function, lazy, unmet)
        return function

    return add


def reward_names() -> tuple[str, ...]:
    """The values that `reward=` accepts; those of plug-ins too."""
    load_plugins()
    return tuple(_REWARDS)


def get_reward(name: str, arguments: Mapping[str, float] | None = None) -> Reward:
    """The reward registered as `name`.

    Args:
        name: of the reward.
        arguments: of its function beside the outcome; None for their defaults.

    Raises:
        ValueError: an unknown name, or an argument that it does not have or that is no number.
    """
    check_choice("reward", name, reward_names())
    reward = _REWARDS[name]
    if arguments is None:
        return reward
    known = tuple(inspect.signature(reward.function).parameters)[1:]
    if not isinstance(arguments, Mapping) or not set(arguments) <= set(known):
        raise ValueError(
            f"reward_arguments={arguments!r} is not allowed; reward={name!r} has "
            f"{', '.join(known) or 'no arguments'}"
        )
    numbers = {
        key: check_finite(f"reward_arguments[{key!r}]", value) for key, value in arguments.items()
    }
    return replace(reward, function=functools.partial(reward.function, **numbers))


def unmet_budgets(price: float, terminated: Any, excess: Any) -> Any:
    """(...) what a step earns, never above 0, where it ends an episode with a budget unmet.

    `-price * (1 + excess)`: where the rewards of episodes differ by at most `price`, the worst that
    meets the budgets earns more than the best that does not, and of two that do not, the nearer
    one more. Without it nothing would be as good as doing nothing.

    Args:
        price: of an unmet budget.
        terminated: (...) whether the step ended the episode.
        excess: (...) how far usage is above the limits after it, summed over the budgets.
    """
    return 0.0 - price * terminated * ((excess > 0.0) + excess)


@register_reward("accuracy_change")
def accuracy_change(outcome: Outcome) -> dict[str, float]:
    """Change of accuracy, in [-1, 1]; an episode's sum is the whole loss or gain."""
    return {"accuracy_change": outcome.after.accuracy - outcome.before.accuracy}


@register_reward("accuracy", lazy=True)
def accuracy(outcome: Outcome) -> dict[str, float]:
    """Accuracy at the end, in [0, 1]; before, 0. Malik et al., arXiv 2110.08558."""
    return {"accuracy": outcome.after.accuracy if outcome.terminated else 0.0}


@register_reward("rl_pruner")
def rl_pruner(outcome: Outcome, alpha: float = 0.0, beta: float = 0.0) -> dict[str, float]:
    """Change of RL-Pruner's score, accuracy + alpha * MACs cut + beta * parameters cut.

    Wang and Kindratenko, arXiv 2411.06463. The cuts are shares of the dense network's. Published
    settings of (alpha, beta): accuracy-based (0, 0), FLOPs-based (0.25, 0) and parameter-based
    (0, 0.25). There the score itself is what a step is judged by; `PruningDynamics.worth` gives it
    up to a constant, and that is what `RLPruner` follows.
    """
    before, after = outcome.previous, outcome.state
    return {
        "accuracy": outcome.after.accuracy - outcome.before.accuracy,
        "macs_cut": alpha * (before.macs - after.macs),
        "params_cut": beta * (before.params - after.params),
    }


@register_reward("amc", lazy=True)
def amc(outcome: Outcome) -> dict[str, float]:
    """AMC's accuracy-guaranteed protocol at the end, -error * ln(MACs); before, 0.

    He et al., arXiv 1802.03494. The logarithm is divided by that of the dense network's MACs, so
    that the dense network would earn minus its error.
    """
    macs = max(1.0, outcome.state.macs * outcome.dense_macs)
    size = math.log(macs) / max(1.0, math.log(outcome.dense_macs))
    return {"amc": -(1.0 - outcome.after.accuracy) * size if outcome.terminated else 0.0}


@register_reward("final", lazy=True)
def final(outcome: Outcome) -> dict[str, float]:
    """Accuracy at the end minus that of the dense network, in [-1, 1]; before, 0."""
    change = outcome.after.accuracy - outcome.dense.accuracy
    return {"final": change if outcome.terminated else 0.0}
