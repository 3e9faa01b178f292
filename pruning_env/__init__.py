"""Reinforcement-learning environments for structured pruning of convolutional networks.

Importing this package registers its environments with Gymnasium and imports nothing heavy. The
names exported here and in `pruning_env.wrappers` are what other programs import; the rooms below
may change.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium as gym

from pruning_env.former_names import FORMER_NAMES, FormerNames

if TYPE_CHECKING:
    from pruning_env.envs.cnn_prune import CNNPruneEnv
    from pruning_env.envs.sb3 import CNNPruneVecEnv
    from pruning_env.evaluation.evaluator import Evaluator
    from pruning_env.evaluation.importance.scores import (
        Evidence,
        importance_scores,
        register_importance,
    )
    from pruning_env.evaluation.latency import interleaved_latency
    from pruning_env.graph.channel_graph import ChannelGraph
    from pruning_env.graph.picture import draw_graph
    from pruning_env.graph.tracing.rules.registry import register_operator
    from pruning_env.process.budgets import register_budget
    from pruning_env.process.rewards import Outcome, register_reward
    from pruning_env.process.state import PruningState
    from pruning_env.suites import SUITES, Problem, Suite, get_suite
    from pruning_env.tabular.sb3 import CNNPruneTabularVecEnv
    from pruning_env.tasks.data import Split, Splits, load_digits8, load_npz
    from pruning_env.tasks.export import Exported, export
    from pruning_env.tasks.making import make_task
    from pruning_env.tasks.models.loading import load_state_file
    from pruning_env.tasks.quantisation import quantise_onnx
    from pruning_env.tasks.registry import Task, imagefolder_task, register_task
    from pruning_env.tasks.storage import load_pruned, save_pruned
    from pruning_env.worlds.env import CNNPruneWorldsEnv

__all__ = [
    "SUITES",
    "CNNPruneEnv",
    "CNNPruneTabularVecEnv",
    "CNNPruneVecEnv",
    "CNNPruneWorldsEnv",
    "ChannelGraph",
    "Evaluator",
    "Evidence",
    "Exported",
    "Outcome",
    "Problem",
    "PruningState",
    "Split",
    "Splits",
    "Suite",
    "Task",
    "draw_graph",
    "export",
    "get_suite",
    "imagefolder_task",
    "importance_scores",
    "interleaved_latency",
    "load_digits8",
    "load_npz",
    "load_pruned",
    "load_state_file",
    "make_task",
    "quantise_onnx",
    "register_budget",
    "register_importance",
    "register_operator",
    "register_reward",
    "register_task",
    "save_pruned",
]

#: Where each exported name lives, so that it is loaded when it is first used (PEP 562).
_HOMES = {
    "SUITES": "suites",
    "CNNPruneEnv": "envs.cnn_prune",
    "CNNPruneTabularVecEnv": "tabular.sb3",
    "CNNPruneVecEnv": "envs.sb3",
    "CNNPruneWorldsEnv": "worlds.env",
    "ChannelGraph": "graph.channel_graph",
    "Evaluator": "evaluation.evaluator",
    "Evidence": "evaluation.importance.scores",
    "Exported": "tasks.export",
    "Outcome": "process.rewards",
    "Problem": "suites",
    "PruningState": "process.state",
    "Split": "tasks.data",
    "Splits": "tasks.data",
    "Suite": "suites",
    "Task": "tasks.registry",
    "draw_graph": "graph.picture",
    "export": "tasks.export",
    "get_suite": "suites",
    "imagefolder_task": "tasks.registry",
    "importance_scores": "evaluation.importance.scores",
    "interleaved_latency": "evaluation.latency",
    "load_digits8": "tasks.data",
    "load_npz": "tasks.data",
    "load_pruned": "tasks.storage",
    "load_state_file": "tasks.models.loading",
    "make_task": "tasks.making",
    "quantise_onnx": "tasks.quantisation",
    "register_budget": "process.budgets",
    "register_importance": "evaluation.importance.scores",
    "register_operator": "graph.tracing.rules.registry",
    "register_reward": "process.rewards",
    "register_task": "tasks.registry",
    "save_pruned": "tasks.storage",
}

_ENVIRONMENTS: dict[str, tuple[str, str | None]] = {
    "CNNPrune-v0": (
        "pruning_env.envs.cnn_prune:CNNPruneEnv",
        "pruning_env.envs.cnn_prune_vector:CNNPruneVectorEnv",
    ),
    "CNNPruneTabular-v0": (
        "pruning_env.tabular.env:CNNPruneTabularEnv",
        "pruning_env.tabular.vector_env:CNNPruneTabularVectorEnv",
    ),
    "CNNPruneWorlds-v0": ("pruning_env.worlds.env:CNNPruneWorldsEnv", None),
}
"""By id: the entry points of the single and of the vector environment, where it has one."""


def __getattr__(name: str) -> Any:
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

if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
    _former = {f"{__name__}.{old}": f"{__name__}.{new}" for old, new in FORMER_NAMES.items()}
    sys.meta_path.append(FormerNames(_former))
