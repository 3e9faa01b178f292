"""Reinforcement-learning environments for structured pruning of convolutional networks.

Importing this package registers its environments with Gymnasium and imports nothing heavy: the
names it exports are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

if TYPE_CHECKING:
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.evaluation.importance.scores import Evidence, register_importance
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.process.budgets import register_budget
    from pruning_env.process.rewards import Outcome, register_reward
    from pruning_env.process.state import PruningState
    from pruning_env.tasks.data import Split, Splits
    from pruning_env.tasks.registry import Task, register_task

__all__ = [
    "ChannelGraph",
    "Evaluator",
    "Evidence",
    "Outcome",
    "PruningState",
    "Split",
    "Splits",
    "Task",
    "register_budget",
    "register_importance",
    "register_reward",
    "register_task",
]

_HOMES = {
    "ChannelGraph": "graph.channel_graph",
    "Evaluator": "evaluation.evaluator",
    "Evidence": "evaluation.importance.scores",
    "Outcome": "process.rewards",
    "PruningState": "process.state",
    "Split": "tasks.data",
    "Splits": "tasks.data",
    "Task": "tasks.registry",
    "register_budget": "process.budgets",
    "register_importance": "evaluation.importance.scores",
    "register_reward": "process.rewards",
    "register_task": "tasks.registry",
}
_ENVIRONMENTS = {
    "CNNPrune-v0": (
        "pruning_env.envs.cnn_prune:CNNPruneEnv",
        "pruning_env.envs.cnn_prune_vector:CNNPruneVectorEnv",
    ),
    "CNNPruneTabular-v0": (
        "pruning_env.tabular.env:CNNPruneTabularEnv",
        "pruning_env.tabular.vector_env:CNNPruneTabularVectorEnv",
    ),
}
"""By id: the entry points of the single and of the vector environment."""


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_environments() -> None:
    """Skip what is registered already, so that a reload neither warns nor replaces anything."""
    for env_id, (single, vector) in _ENVIRONMENTS.items():
        if env_id not in gym.registry:
            gym.register(id=env_id, entry_point=single, vector_entry_point=vector)


_register_environments()
