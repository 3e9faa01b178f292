"""`cnnprune compress`: the whole way from a network to a smaller file, in stages, resumable.

Each stage is another command of this command line, run here as it would be typed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pruning_agents.cli.arguments import BadInput, device, positive_int, seed
from pruning_agents.cli.compress_request import request_of
from pruning_agents.cli.finetune import FIELDS as TRAINING
from pruning_agents.cli.main import options_of, parser_of
from pruning_agents.cli.options import groups, limit
from pruning_agents.cli.sensitivity import PROBE_IMAGES
from pruning_agents.cli.task_options import DEFAULT_TASK, add_task, task_of
from pruning_agents.compress.estimate import Measured, measured
from pruning_agents.compress.report import LATENCY_FILE, report
from pruning_agents.compress.rows import line_of
from pruning_agents.compress.running import (
    PLAN_FILE,
    begun_with,
    differing,
    remember,
    run_stages,
)
from pruning_agents.compress.runtimes import measure_runtimes
from pruning_agents.compress.stages import Stage, stages_of
from pruning_agents.search.registry import agent_names
from pruning_agents.search.rows import provenance
from pruning_env.evaluation.recovery.batch_norm import RECOVERY_NAMES
from pruning_env.evaluation.recovery.training import TrainingRecipe
from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.registry import Task, get_task
from pruning_env.tasks.storage import load_pruned

REPORT_FILE = "report.html"
REPORT = "time a pass in each runtime, write the page"

DESCRIPTION = (
    "From a trained network to a smaller file: trace it, measure how sensitive its layers are, "
    "prune it by rules of thumb and by a search, train the best, look at test once, export it, and "
    f"write one page about it, OUT/{REPORT_FILE}. A call that was killed goes on when it is typed "
    "again."
)

#: Evaluations of rules and search together, where neither a number nor a time is given.
_EVALUATIONS = 100

#: Options of the way whose values, with those of the task, decide what comes out.
_DECIDING = (
    *("task", "model", "weights", "images", "npz", "input", "mean", "std", "data_root"),
    *("budget", "groups", "round_to", "recovery", "agent", "evaluations", "minutes", "seed"),
    *("epochs", "batch_size", "learning_rate", "probe_images", "device", "onnx", "int8"),
)

#: Those that are paths: the same file is the same argument from any folder.
_PATHS = ("weights", "images", "npz", "data_root")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is pruned, how far, how long, and where everything goes."""
    default = TrainingRecipe()
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--budget",
        type=limit,
        action="append",
        required=True,
        metavar="KEY=LIMIT",
        help="what may remain, as a ratio to the dense model, such as macs=0.5; may be repeated",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done and how long it would take, from short measurements, and "
        "write nothing",
    )
    add_task(parser, DEFAULT_TASK)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--agent",
        choices=agent_names(),
        default="rl-pruner-from-rules",
        help="who searches after the rules of thumb; best-of-rules for nobody (default: "
        "%(default)s)",
    )
    length = search.add_mutually_exclusive_group()
    length.add_argument(
        "--evaluations",
        type=positive_int,
        metavar="N",
        help=f"on search-val, of rules and search together (default: {_EVALUATIONS})",
    )
    length.add_argument(
        "--minutes",
        type=_minutes,
        metavar="M",
        help="as many evaluations as fit, by a measurement at the first call",
    )
    search.add_argument(
        "--recovery",
        choices=RECOVERY_NAMES,
        default="reconstruct",
        help="what follows a cut before it is judged (default: %(default)s)",
    )
    search.add_argument(
        "--groups", type=groups, metavar="all|inner|A,!B", help="which groups are pruned"
    )
    search.add_argument(
        "--round-to", type=positive_int, metavar="N", help="widths stay dense or a multiple of N"
    )
    search.add_argument("--seed", type=seed, default=0, help="seed (default: %(default)s)")
    training = parser.add_argument_group("training")
    for name, value in (("epochs", 10), ("batch_size", None), ("learning_rate", None)):
        training.add_argument(
            f"--{name.replace('_', '-')}",
            type=TRAINING[name],
            default=getattr(default, name) if value is None else value,
            help="default: %(default)s",
        )
    parser.add_argument(
        "--probe-images",
        type=positive_int,
        default=PROBE_IMAGES,
        metavar="N",
        help="images of search-train for the sensitivities (default: %(default)s)",
    )
    parser.add_argument("--onnx", action="store_true", help="write OUT/export/model.onnx")
    parser.add_argument("--int8", action="store_true", help="and model.int8.onnx beside it")
    parser.add_argument("--device", type=device, default="cpu", help="default: %(default)s")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bars")


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return value


def run(options: argparse.Namespace, console: Console) -> int:
    """Go the way, or what is left of it; exit code 1 if no pruning meets the budget."""
    _check(options)
    task = get_task(task_of(options, DEFAULT_TASK))
    arguments = _arguments(options)
    begun = _begun(options, arguments)
    times = None
    if begun is None or options.dry_run:
        times = _measure(options, task)
    evaluations = _evaluations(options, times) if begun is None else begun["evaluations"]
    request = request_of(options, task, evaluations)
    stages = stages_of(request)
    if times is not None:
        seconds = times.seconds(request, options.epochs)
        console.print(_plan(task, stages, seconds))
    if options.dry_run:
        console.print("Nothing was written.")
        return 0
    if begun is None:
        remember(options.out, arguments, evaluations)
    tell = partial(console.print, soft_wrap=True, markup=False, highlight=False)
    code = run_stages(stages, options.out, lambda words: run_command(words, console), tell)
    if code:
        tell(f"Stopped there; what is done is kept in {options.out}.")
        return code
    number = len(stages) + 1
    tell(f"[{number}/{number}] report: {REPORT}")
    _report(options, task, stages)
    tell(f"Written to {options.out / REPORT_FILE}")
    return 0


def run_command(words: Sequence[str], console: Console) -> int:
    """Run another command as it would be typed behind `cnnprune`; its exit code.

    Raises:
        BadInput: what it refuses.
    """
    options = options_of(parser_of(words[0]), words)
    try:
        return options.run(options, console)
    except BadInput as error:
        raise BadInput(f"{words[0]}: {error}") from error


def _check(options: argparse.Namespace) -> None:
    """Refuse what would only fail at the end."""
    out: Path = options.out
    if out.exists() and not out.is_dir():
        raise BadInput(f"argument --out: {out} is a file; a folder is needed")
    if options.int8 and not options.onnx:
        raise BadInput("argument --int8: needs --onnx as well")
    for package in ("onnx", "onnxscript", "onnxruntime") if options.onnx else ():
        if importlib.util.find_spec(package) is None:
            raise BadInput(
                f"argument --onnx: {package} is not installed: pip install 'pruning-env[export]'"
            )


def _begun(options: argparse.Namespace, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """What an earlier call has left in OUT, if it was the same call.

    Raises:
        BadInput: it was another one, or something else is there.
    """
    out: Path = options.out
    try:
        begun = begun_with(out)
    except ValueError as error:
        raise BadInput(f"argument --out: {error}") from error
    if begun is None:
        if out.is_dir() and any(out.iterdir()):
            raise BadInput(
                f"argument --out: {out} holds files, but no {PLAN_FILE} of an earlier call; choose "
                "another folder"
            )
        return None
    before = begun["arguments"]
    if odd := differing(before, arguments):
        named = ", ".join(f"--{name.replace('_', '-')}" for name in odd)
        there = ", ".join(f"{name}={before.get(name)!r}" for name in odd)
        here = ", ".join(f"{name}={arguments.get(name)!r}" for name in odd)
        raise BadInput(
            f"argument {named}: {out} was begun with {there}, not with {here}; give the same, or "
            "another --out"
        )
    return begun


def _arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What decides the outcome, by the name of its option."""
    given = {**vars(options), "model": options.network, "budget": dict(options.budget)}
    arguments = {name: given[name] for name in _DECIDING}
    for name in _PATHS:
        if arguments[name] is not None:
            arguments[name] = os.path.abspath(arguments[name])
    if options.weights is not None:
        try:
            content = Path(options.weights).read_bytes()
        except OSError as error:
            raise BadInput(f"argument --weights: {error}") from error
        arguments["contents of weights"] = hashlib.sha256(content).hexdigest()
    return arguments


def _measure(options: argparse.Namespace, task: Task) -> Measured:
    try:
        return measured(
            task,
            options.weights,
            options.data_root,
            recovery=options.recovery,
            recipe=TrainingRecipe(
                epochs=options.epochs,
                batch_size=options.batch_size,
                learning_rate=options.learning_rate,
            ),
            device=options.device,
            onnx=options.onnx,
        )
    except (ValueError, OSError, FloatingPointError) as error:
        raise BadInput(str(error)) from error


def _evaluations(options: argparse.Namespace, times: Measured | None) -> int:
    if options.minutes is None:
        return options.evaluations or _EVALUATIONS
    assert times is not None  # nothing was begun
    return times.evaluations_in(60 * options.minutes)


def _plan(task: Task, stages: Sequence[Stage], seconds: dict[str, float]) -> Table:
    table = Table(title=f"{task.name}: {len(stages) + 1} stages")
    table.add_column("stage")
    table.add_column("what")
    table.add_column("about", justify="right")
    for stage in stages:
        about = "done" if stage.done else _duration(seconds[stage.name])
        table.add_row(stage.name, stage.what, about)
    table.add_row("report", REPORT, _duration(seconds["report"]))
    left = sum(seconds[stage.name] for stage in stages if not stage.done) + seconds["report"]
    table.add_row("", "all together", _duration(left))
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _report(options: argparse.Namespace, task: Task, stages: Sequence[Stage]) -> None:
    out: Path = options.out
    dense = task.model(options.weights, options.data_root)
    if not (out / LATENCY_FILE).is_file():
        small = load_pruned(out / "finetune" / "pruned", allow_import=True)
        rows = measure_runtimes(dense, small, task.input_shape, provenance(options.command_line))
        atomic_write(out / LATENCY_FILE, "".join(line_of(row) + "\n" for row in rows))
    size = sum(tensor.numel() * tensor.element_size() for tensor in dense.state_dict().values())
    graph = ChannelGraph.trace(dense, task.example_input())
    command = options.command_line
    atomic_write(out / REPORT_FILE, report(out, stages, graph, size, command))
