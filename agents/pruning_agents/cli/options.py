"""Arguments that several commands share: the environment, and the folder for what is found.

Turns what was typed into keyword arguments and refuses what cannot be done, by the argument's name.
"""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator

import pruning_env  # noqa: F401  (registers the environments)
from pruning_agents.cli.arguments import BadInput, device, positive_int
from pruning_agents.cli.output import CHECKPOINT_FILE, RESULT_FILE
from pruning_agents.cli.runtime_options import add_runtime, runtime_arguments
from pruning_agents.cli.task_options import DEFAULT_TASK, add_task, task_of
from pruning_env.evaluation.importance.scores import importance_kinds
from pruning_env.evaluation.recovery.batch_norm import RECOVERY_NAMES
from pruning_env.graph.selection import Groups, check_groups
from pruning_env.process.actions import action_names
from pruning_env.process.constraints import constraint_names
from pruning_env.process.rewards import reward_names
from pruning_env.tabular.table import load_table

REAL, TABULAR = "CNNPrune-v0", "CNNPruneTabular-v0"

#: Arguments of an environment that are passed on if they were given.
_PASSED = (
    *("action", "constraint", "max_steps", "reward", "recovery", "importance"),
    *("channels_per_step", "round_to", "groups", "weights", "data_root"),
)


def add_environment(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `settings_of` and `make_env` read."""
    parser.add_argument(
        "--env",
        default=REAL,
        choices=(REAL, TABULAR),
        help=f"environment; {TABULAR} answers from a table, in microseconds, and takes fewer of "
        "the arguments below (default: %(default)s)",
    )
    parser.add_argument(
        "--budget",
        type=limit,
        action="append",
        metavar="KEY=LIMIT",
        help="what may remain, as a ratio to the dense model; may be repeated "
        "(default: params=0.25)",
    )
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    add_task(parser, DEFAULT_TASK)
    add_runtime(parser, table=True)
    more = parser.add_argument_group(
        "the environment", "What is left out keeps the environment's default; see its description."
    )
    more.add_argument("--action", choices=action_names(), help="what an action means")
    more.add_argument("--constraint", choices=constraint_names(), help="how budgets are kept")
    more.add_argument(
        "--max-steps", type=positive_int, metavar="N", help="most steps of an episode"
    )
    more.add_argument("--reward", choices=reward_names(), help="what is rewarded")
    more.add_argument("--recovery", choices=RECOVERY_NAMES, help="what follows a cut")
    more.add_argument(
        "--importance", choices=importance_kinds(), help="which channels of a group go first"
    )
    more.add_argument(
        "--channels-per-step", type=_number, metavar="SHARE", help="share of all channels, per step"
    )
    more.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other argument of the environment, in JSON or as text; may be repeated",
    )
    more.add_argument(
        "--round-to", type=positive_int, metavar="N", help="widths stay dense or a multiple of N"
    )
    more.add_argument(
        "--groups",
        type=groups,
        metavar="all|inner|A,!B",
        help="which groups are pruned: those that no sum couples, or those with a layer that a "
        "pattern matches, without those that one behind ! does",
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say where results go."""
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--test", action="store_true", help="open the test split for the result")
    parser.add_argument("--force", action="store_true", help="replace an earlier result in OUT")


def limit(text: str) -> tuple[str, float]:
    """A budget: what counts, and the share of the dense model's that may remain."""
    key, separator, share = text.partition("=")
    try:
        if separator and key:
            return key, float(share)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not KEY=LIMIT, such as params=0.25")


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as rank_every=1")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def groups(text: str) -> Groups:
    """Which groups are pruned, as `--groups` takes it."""
    chosen: Groups = text if text in ("all", "inner") else text.split(",")
    try:
        check_groups(chosen)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return chosen


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def settings_of(
    options: argparse.Namespace, recipe: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Keyword arguments of the environment; what was not given is left to its defaults.

    Args:
        options: from a parser with `add_environment`.
        recipe: what stands in for the defaults. Of `finetune_arguments`, each one.

    Raises:
        BadInput: an argument that the environment does not take.
    """
    settings: dict[str, Any] = dict(recipe or {})
    if options.env == TABULAR:
        task = load_table().provenance["task"]
        if task_of(options, task) != task or options.device != "cpu":
            raise BadInput(f"--env {TABULAR} takes only --task {task} and --device cpu")
    else:
        settings |= {"task": task_of(options, DEFAULT_TASK), "device": options.device}
    if options.budget is not None:
        settings["budget"] = dict(options.budget)
    given = {name: getattr(options, name) for name in _PASSED}
    settings |= {name: value for name, value in given.items() if value is not None}
    if timing := runtime_arguments(options):
        settings["latency_arguments"] = timing
    for name, value in options.set:
        both = name == "finetune_arguments" and isinstance(value, dict)
        settings[name] = {**(settings.get(name) or {}), **value} if both else value
    entry_point = gym.spec(options.env).entry_point
    assert isinstance(entry_point, str)
    known = inspect.signature(load_env_creator(entry_point)).parameters
    set_here = {name for name, _ in options.set} | set(recipe or {})
    unknown = [
        name if name in set_here else f"--{name.replace('_', '-')}"
        for name in settings
        if name not in known
    ]
    if unknown:
        raise BadInput(f"--env {options.env} does not take {', '.join(unknown)}")
    return settings


def make_env(
    options: argparse.Namespace, recipe: Mapping[str, Any] | None = None
) -> tuple[gym.Env, dict[str, Any]]:
    """The environment that was asked for, and the keyword arguments it was made with.

    Args:
        options: from a parser with `add_environment`.
        recipe: as for `settings_of`.

    Raises:
        BadInput: it cannot be made.
    """
    settings = settings_of(options, recipe)
    try:
        return gym.make(options.env, **settings), settings
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error


def check_output(options: argparse.Namespace) -> None:
    """Refuse a folder that cannot be written, or that holds what would be lost.

    Raises:
        BadInput: it is a file, or holds a result or a checkpoint and there is no --force.
    """
    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise BadInput(f"argument --out: {out} is a file; a folder is needed")
    if (out / RESULT_FILE).exists() and not options.force:
        raise BadInput(
            f"argument --out: {out} already holds a result; choose another folder or "
            "give --force to replace it"
        )
    if (out / CHECKPOINT_FILE).exists() and not options.force:
        raise BadInput(
            f"argument --out: {out} holds the checkpoint of a search that was interrupted; give "
            "train --resume to continue it, or --force to replace it"
        )
