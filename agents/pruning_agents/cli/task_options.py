"""Arguments of several commands that say what is pruned and judged: a task, or a model and images.

What is given as a model and images is made a task and registered, so that everything behind the
command line finds it by its name.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from pruning_agents.cli.arguments import BadInput
from pruning_env.tasks.making import make_task, task_from
from pruning_env.tasks.networks import import_object, is_code
from pruning_env.tasks.registry import Task, get_task, register_task, task_names
from pruning_env.tasks.storage import Recipe, saved_task

DEFAULT_TASK = "digits-resnet8"

#: The fields of a `Source` by the option that gives them.
_FIELDS = {
    **{"network": "model", "weights": "weights", "images": "images", "npz": "npz"},
    **{"input": "input_shape", "mean": "mean", "std": "std"},
}


def add_task(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Add the arguments that `task_of` and `task_of_saved` read.

    Args:
        parser: of a command.
        default: name of the task where nothing is given; None means that of a saved network.
    """
    group = parser.add_argument_group(
        "what is pruned",
        "A task, or a model and images. "
        + ("Needed only where a saved network does not say." if default is None else ""),
    )
    group.add_argument(
        "--task",
        metavar="NAME|module:object",
        help="a registered task (see `cnnprune tasks`), or your own, a Task or a function that "
        f"returns one ({'default: ' + default if default else 'default: as saved'})",
    )
    group.add_argument(
        "--model",
        dest="network",
        metavar="MODEL",
        help="resnet18 (any of torchvision), timm:NAME, path/to/file.py:function or "
        "module:function; a function is given num_classes if it has that parameter",
    )
    group.add_argument("--weights", metavar="FILE", help="dense weights (default: the task's own)")
    group.add_argument(
        "--images",
        metavar="DIR",
        help="images in folders by class, below train/ and val/ or straight in DIR; without val/ "
        "a part is held out for test, always the same",
    )
    group.add_argument("--npz", metavar="FILE", help="x_train, y_train, x_test, y_test instead")
    group.add_argument(
        "--input",
        type=image_shape,
        metavar="CxHxW",
        help="what the model takes; images are scaled to it (default: what timm says, 3x224x224)",
    )
    group.add_argument(
        "--mean",
        type=_channels,
        metavar="M,M,M",
        help="of the pixels (0 to 1) that the model was trained with (default: what timm says, or "
        "ImageNet's; of the images themselves for --npz and grey ones)",
    )
    group.add_argument("--std", type=_channels, metavar="S,S,S", help="likewise")
    group.add_argument("--data-root", metavar="DIR", help="folder that holds the data sets")


def image_shape(text: str) -> tuple[int, ...]:
    """The shape of one image, such as 3x224x224."""
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 3x224x224")
    return tuple(map(int, parts))


def _channels(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers such as 0.5,0.5,0.5") from None


def task_of(options: argparse.Namespace, default: str) -> str:
    """Name of the task that was asked for; it is registered now.

    Raises:
        BadInput: there is none, or it cannot be made of what was given.
    """
    given = _given(options)
    if not given:
        return _named(options.task or default).name
    if options.task is not None:
        raise BadInput(f"argument --{given[0]}: not allowed with --task, which has its own")
    if options.network is None:
        raise BadInput(f"argument --{given[0]}: needs --model as well")
    try:
        task = make_task(
            options.network,
            images=options.images,
            npz=options.npz,
            weights=options.weights,
            input_shape=options.input,
            mean=options.mean,
            std=options.std,
        )
        register_task(task)
    except (ValueError, OSError) as error:
        raise BadInput(str(error)) from error
    return task.name


def task_of_saved(options: argparse.Namespace, recipe: Recipe) -> Task:
    """The task of a saved network, registered; what was given stands in for what is stored.

    Raises:
        BadInput: nothing is stored, and what was given does not do; it says what to give.
    """
    if options.task is not None:
        task = _named(options.task)
        if task.name != recipe.architecture:
            raise BadInput(
                f"argument --task: the network was saved from {recipe.architecture!r}, not from "
                f"{task.name!r}"
            )
        return task
    try:
        stored = saved_task(recipe, allow_import=True)  # nothing is imported before it is built
    except ValueError as error:
        raise BadInput(f"{error} Give --task module:object.") from error
    if stored.source is None:
        if given := _given(options):
            raise BadInput(
                f"argument --{given[0]}: the network was saved from the task {stored.name!r}, "
                "which has its own; only --weights and --data-root can be given"
            )
        return stored
    if options.network is None and is_code(stored.source.model):
        raise BadInput(
            f"the network was built by {stored.source.model}; give --model {stored.source.model} "
            "if that code may be run"
        )
    changes: dict[str, Any] = {
        field: getattr(options, option)
        for option, field in _FIELDS.items()
        if getattr(options, option) is not None
    }
    if "images" in changes or "npz" in changes:
        changes = {"images": None, "npz": None} | changes
    task = task_from(replace(stored.source, **changes), name=recipe.architecture)
    register_task(task)
    return task


def _given(options: argparse.Namespace) -> list[str]:
    """Options that say of what a task is made."""
    named = {"network": "model"}
    return [
        named.get(name, name)
        for name in _FIELDS
        if name != "weights" and getattr(options, name) is not None
    ]


def _named(name: str) -> Task:
    """A registered task, or one at `module:object`, registered now."""
    try:
        if ":" not in name:
            return get_task(name)
        found = import_object(name, argument="task")
        task = found if isinstance(found, Task) or not callable(found) else found()
        if not isinstance(task, Task):
            raise ValueError(f"task={name!r} is a {type(task).__name__}, not a Task")
        if task.name not in task_names():
            register_task(task)
        return task
    except ValueError as error:
        raise BadInput(f"argument --task: {error}") from error
