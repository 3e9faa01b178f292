"""What users register is checked by their type checker: each wrong line is an error, no right one.

That the ignored errors are errors is seen by mypy itself, as ignores that are not needed are.
"""
# mypy: warn-unused-ignores

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from pruning_env import (
    Evidence,
    Outcome,
    Task,
    register_budget,
    register_importance,
    register_reward,
)
from pruning_env.evaluation.importance import scores as importance
from pruning_env.process import budgets, rewards
from pruning_env.tasks.data import load_digits8


def size(model: nn.Module) -> float:
    return float(sum(parameter.numel() for parameter in model.parameters()))


def earned(outcome: Outcome) -> Mapping[str, float]:
    return {"accuracy": outcome.after.accuracy}


def scores(evidence: Evidence) -> NDArray[np.float64]:
    return np.ones(evidence.graph.num_channels)


def to_a_wrong_place(count: int) -> str:
    return "channels" * count


@pytest.fixture(autouse=True)
def registries(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((budgets, "_MEASURED"), (rewards, "_REWARDS"), (importance, "_KINDS")):
        monkeypatch.setattr(module, name, dict(getattr(module, name)))


def test_functions_are_registered_as_decorators_and_stay_what_they_are() -> None:
    assert register_budget("size")(size) is size
    assert register_reward("earned")(earned) is earned
    assert register_importance("ones")(scores) is scores
    assert register_budget("also by its name", size) is size
    assert {"size", "also by its name"} <= set(budgets.budget_names())
    assert "earned" in rewards.reward_names() and "ones" in importance.importance_kinds()


def test_functions_of_another_type_are_type_errors() -> None:
    register_budget("1")(to_a_wrong_place)  # type: ignore[type-var]
    register_budget("2", to_a_wrong_place)  # type: ignore[call-overload]
    register_budget("3", earned)  # type: ignore[call-overload]
    register_reward("4")(size)  # type: ignore[type-var]
    register_importance("5")(size)  # type: ignore[type-var]
    Task(
        name="untyped",
        summary="",
        build=lambda: nn.Linear(1, 1),
        load_data=lambda root: load_digits8(),
        load_weights=size,  # type: ignore[arg-type]
        input_shape=(1, 8, 8),
        val_seen=False,
    )


def test_a_name_that_is_taken_is_refused_before_there_is_a_function() -> None:
    for register, taken in (
        (register_budget, "params"),
        (register_reward, "final"),
        (register_importance, "l1"),
    ):
        with pytest.raises(ValueError, match=f"{taken!r} is already registered"):
            register(taken)
