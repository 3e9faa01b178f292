"""Hyperparameters of agents, read from the YAML files that come with this package.

One file per agent in `hyperparameters/`: what holds everywhere under `defaults`, what differs where
an episode is one action under `one_step`, and what differs for a task under `tasks`. Knows nothing
of what the settings mean; unknown ones are refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml

from pruning_env.envs.cnn_prune import CNNPruneEnv

_FOLDER = Path(__file__).parent / "hyperparameters"
_SECTIONS = ("defaults", "one_step", "tasks")


def settings_file(agent: str) -> Path:
    """Where the settings of an agent are."""
    return _FOLDER / f"{agent}.yaml"


def read_settings(
    source: Path, task: str, allowed: Collection[str], *, one_step: bool = False
) -> dict[str, Any]:
    """The settings for a task: the defaults, replaced one by one by what the other sections say.

    Args:
        source: a YAML file.
        task: name of a task, or of an environment that has none; one that the file does not
            mention gets the defaults.
        allowed: names of the settings that there are.
        one_step: whether episodes are one action long.

    Raises:
        ValueError: the file is no mapping of mappings, or has an unknown key anywhere; it names
            the file, the key and what is allowed.
    """
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{source} is not YAML: {error}") from error
    sections = _mapping(source, "the file", content)
    _check_keys(source, "the file", sections, _SECTIONS)
    defaults = _mapping(source, "defaults", sections.get("defaults"))
    short = _mapping(source, "one_step", sections.get("one_step"))
    tasks = _mapping(source, "tasks", sections.get("tasks"))
    common = (("defaults", defaults), ("one_step", short))
    for where, settings in (*common, *((f"tasks: {t}", tasks[t]) for t in tasks)):
        _check_keys(source, where, _mapping(source, where, settings), allowed)
    return {**defaults, **(short if one_step else {}), **(tasks.get(task) or {})}


def task_of(env: gym.Env) -> str:
    """What `read_settings` calls the task of an environment.

    The `task` that a `CNNPrune-v0` was made with, else the environment's registered id.
    """
    unwrapped, spec = env.unwrapped, env.spec
    if type(unwrapped) is CNNPruneEnv:
        return unwrapped.task_name
    return type(unwrapped).__name__ if spec is None else spec.id


def _mapping(source: Path, where: str, value: Any) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{source}: {where} must be a mapping of names to values, not {value!r}")
    return value


def _check_keys(
    source: Path, where: str, given: Mapping[str, Any], allowed: Collection[str]
) -> None:
    unknown = [key for key in given if key not in allowed]
    if unknown:
        raise ValueError(
            f"{source}: {where} has unknown keys {', '.join(map(repr, unknown))}; "
            f"allowed: {', '.join(sorted(allowed))}"
        )
