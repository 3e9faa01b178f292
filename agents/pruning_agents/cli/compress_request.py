"""What was typed for `cnnprune compress`, as words for the commands of its stages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from pruning_agents.compress.stages import Request
from pruning_env.tasks.networks import is_code
from pruning_env.tasks.registry import Task


def request_of(options: argparse.Namespace, task: Task, evaluations: int) -> Request:
    """What was typed, as words for the commands of the stages.

    Args:
        options: of `cnnprune compress`.
        task: that they name, registered.
        evaluations: of rules and search together.
    """
    names = {"task": "task", "network": "model", "images": "images", "npz": "npz"}
    named = [(f"--{names[name]}", getattr(options, name)) for name in names]
    pruned = [
        *named,
        ("--weights", options.weights),
        ("--input", options.input and "x".join(map(str, options.input))),
        ("--mean", options.mean and ",".join(map(repr, options.mean))),
        ("--std", options.std and ",".join(map(repr, options.std))),
        ("--data-root", options.data_root),
    ]
    # A network of a model and images carries its source; code is run only if it is named again.
    source = task.source
    saved = [("--data-root", options.data_root)]
    if source is None:
        saved += [("--task", options.task), ("--weights", options.weights)]
    elif is_code(source.model):
        saved += [("--model", options.network)]
    shape = "x".join(map(str, task.input_shape))
    traced: list[tuple[str, Any]] = []
    if source is not None:
        traced = [("--input", shape), ("--classes", source.num_classes)]
    chosen = options.groups
    environment = [("--budget", f"{key}={share!r}") for key, share in options.budget] + [
        ("--constraint", "project"),  # the budget is met, and no more than that is removed
        ("--max-steps", 1),
        ("--recovery", options.recovery),
        ("--groups", chosen if chosen is None or isinstance(chosen, str) else ",".join(chosen)),
        ("--round-to", options.round_to),
    ]
    training = [
        ("--epochs", options.epochs),
        ("--batch-size", options.batch_size),
        ("--learning-rate", options.learning_rate),
    ]
    return Request(
        out=options.out,
        pruned=_words(pruned),
        saved=_words(saved),
        traced=(options.network or task.name, *_words(traced)),
        environment=_words(environment),
        agent=options.agent,
        evaluations=evaluations,
        seed=options.seed,
        training=_words(training),
        probe_images=options.probe_images,
        device=options.device,
        onnx=options.onnx,
        int8=options.int8,
        progress=not options.no_progress,
    )


def _words(pairs: Sequence[tuple[str, Any]]) -> tuple[str, ...]:
    """Options and their values, without those that were not given."""
    return tuple(word for name, value in pairs if value is not None for word in (name, str(value)))
