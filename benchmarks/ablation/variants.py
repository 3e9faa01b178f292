"""The parts of RL-Pruner that differ here from its paper, as arguments of agent and environment.

Only data. What an argument does is said where it is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pruning_agents.rl_pruner.published import published, published_env

__all__ = ["BUDGET", "TRANSITIONS", "VARIANTS", "Variant"]

BUDGET = {"filters": 0.4}
"""60 % of the filters and neurons go."""

TRANSITIONS = 1200
"""Candidates and commits: 100 for each of the twelve steps of 5 % that the budget takes, as in the
paper."""


@dataclass(frozen=True)
class Variant:
    """One form of the method.

    Attributes:
        name: in tables.
        agent: arguments of `RLPruner`.
        env: arguments of `CNNPruneTabular-v0` beside the budget.
    """

    name: str
    agent: dict[str, Any] = field(default_factory=dict)
    env: dict[str, Any] = field(default_factory=dict)


#: What the table can say of the paper's environment: it has no weights to rank anew or to train, so
#: that networks are judged as cut, by the ranking of the dense one.
_TABULAR = ("action", "logit_scale", "constraint", "reward", "reward_arguments")
_PUBLISHED_ENV = {
    **{name: value for name, value in published_env().items() if name in _TABULAR},
    # Its units are five channels, so that a step of 1 % would be one unit, and six candidates.
    "channels_per_step": 0.05,
    "recovery": "none",
}

#: By name: what replaces the published arguments of the agent, and of the environment.
_PARTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as published": ({}, {}),
    "noise: adaptive, in log space": ({"noise": "adaptive", "noise_std": None}, {}),
    "update: an elite by rank": ({"update": "elite", "clip": None, "step_size": 0.5}, {}),
    "look-ahead: to the end": ({"lookahead": None}, {}),
    "recovery: batch norm, before judging": ({}, {"recovery": "bn"}),
}

VARIANTS: tuple[Variant, ...] = (
    *(
        Variant(name, {**published(), **agent}, {**_PUBLISHED_ENV, **env})
        for name, (agent, env) in _PARTS.items()
    ),
    Variant("our default", {}, {"recovery": "bn"}),
)
