"""Pruned networks on disk: a folder with `weights.safetensors` and `recipe.json`.

The recipe says which architecture to build and which channels of it are left; loading builds,
traces, cuts and fills, so that no code and no pickle is stored. Knows nothing of how the network
was found.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import importlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from pruning_env.files import abandoned, locked_folder, temporary_name
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.making import task_from
from pruning_env.tasks.networks import is_code
from pruning_env.tasks.registry import Task, get_task, task_names
from pruning_env.tasks.source import Source

__all__ = [
    "RECIPE_FILE",
    "WEIGHTS_FILE",
    "Recipe",
    "load_pruned",
    "read_recipe",
    "save_pruned",
    "saved_task",
]

WEIGHTS_FILE = "weights.safetensors"
RECIPE_FILE = "recipe.json"
FORMAT = 1
SOURCE = "source"  # the key of `Recipe.extra` under which a task's source is
NEW, OLD = ".new", ".old"  # suffixes of folders that are being exchanged

RECIPE_LIMIT = 1 << 20
"""Largest recipe in bytes; a mask of 10,000 channels in 120 groups takes 10 kB."""

INPUT_LIMIT = 1 << 26
"""Most numbers in one input: tracing makes such an input, and a recipe may not fill the memory."""

_IMPORT_PATH = re.compile(r"[A-Za-z]\w*(?:\.[A-Za-z]\w*)*:[A-Za-z]\w*", re.ASCII)


@dataclass(frozen=True)
class Recipe:
    """What is needed, besides the weights, to build a pruned network again.

    Attributes:
        format: Version of this file format.
        architecture: Name of a registered task, or "module:callable".
        input_shape: Shape of one input without the batch dimension.
        fingerprint: Of the channel graph of the dense architecture.
        channels: C, length of the keep mask.
        keep: The mask: bits packed (numpy.packbits), base64.
        counts: Channels kept per group name; for readers, not needed to load.
        weights_sha256: Of the weights file.
        versions: Of the packages that wrote it.
        extra: What the caller wanted to store along.
    """

    format: int
    architecture: str
    input_shape: tuple[int, ...]
    fingerprint: str
    channels: int
    keep: str
    counts: Mapping[str, int]
    weights_sha256: str
    versions: Mapping[str, str]
    extra: Mapping[str, Any]

    def keep_mask(self) -> NDArray[np.bool_]:
        """The keep mask, (C,) bool.

        Raises:
            ValueError: `keep` does not hold `channels` bits.
        """
        try:
            packed = np.frombuffer(base64.b64decode(self.keep, validate=True), np.uint8)
        except binascii.Error as error:
            raise ValueError(f"recipe: keep is not base64 ({error})") from error
        if len(packed) != (self.channels + 7) // 8:
            raise ValueError(
                f"recipe: keep holds {len(packed)} bytes; not a mask of {self.channels} channels"
            )
        return np.unpackbits(packed, count=self.channels).astype(np.bool_)


def save_pruned(
    path: str | os.PathLike[str],
    model: nn.Module,
    graph: ChannelGraph,
    keep: NDArray[np.bool_],
    *,
    architecture: str,
    input_shape: tuple[int, ...] | None = None,
    extra: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Save a pruned network as a folder that `load_pruned` reads.

    The folder is written under a temporary name beside `path` and renamed when it is complete and
    on disk: a crash leaves the old one or none, never half of one. What it leaves besides is
    cleared away by the next save, which puts an old one back that was about to be replaced.
    Processes may save to one path, and load from it, at the same time.

    Args:
        path: The folder. Missing parents are made. An existing folder is replaced only when it is
            empty or was written by this function.
        model: The pruned network, trained further or not.
        graph: Channel graph of the dense architecture; of one that is restricted to some groups,
            the whole is stored.
        keep: (C,) bool, the mask it was pruned with.
        architecture: What builds the dense architecture: a registered task, or "module:callable"
            where the callable takes no arguments and returns the module. Of a task that `make_task`
            made, its source is stored along.
        input_shape: Shape of one input without the batch dimension; None takes the task's.
        extra: JSON-able values to store along (accuracies, seed, ...).

    Returns:
        The folder.

    Raises:
        ValueError: The model was not pruned with this mask, the architecture is not of the form
            above, or `extra` is not JSON or too large.
        FileExistsError: `path` is something else; it is left alone.
    """
    folder = Path(path)
    _check_replaceable(folder)
    builder = _builder(architecture)
    shape = builder.input_shape if input_shape is None else tuple(input_shape)
    if shape is None:
        raise ValueError(
            f"input_shape=None: needed for architecture={architecture!r}, which is not a task; "
            "give the shape of one image, such as (3, 32, 32)"
        )
    shapes = {
        name: tuple(t.shape) for name, t in _build(builder, architecture).state_dict().items()
    }
    if any(graph.shapes.get(name, shape) != shape for name, shape in shapes.items()):
        raise ValueError(f"architecture={architecture!r} does not build the network of this graph")
    state = model.state_dict()
    if state.keys() != shapes.keys():
        odd = sorted(state.keys() ^ shapes.keys())
        raise ValueError(f"model has other tensors than architecture={architecture!r}: {odd[:5]}")
    graph, keep = graph.whole, graph.whole_keep(np.asarray(keep))
    _check_shapes(state, graph, keep)
    weights = save({name: tensor.detach().cpu().contiguous() for name, tensor in _untied(state)})
    recipe = Recipe(
        format=FORMAT,
        architecture=architecture,
        input_shape=shape,
        fingerprint=graph.fingerprint,
        channels=graph.num_channels,
        keep=base64.b64encode(np.packbits(keep).tobytes()).decode("ascii"),
        counts={
            group.name: int(count)
            for group, count in zip(graph.groups, graph.counts(keep), strict=True)
        },
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        versions={"pruning-env": _version("pruning-env"), "torch": torch.__version__},
        extra=dict(extra) | ({} if builder.source is None else {SOURCE: builder.source.as_json()}),
    )
    text = _encode(recipe)
    _write_folder(folder, {WEIGHTS_FILE: weights, RECIPE_FILE: text})
    return folder


def load_pruned(path: str | os.PathLike[str], *, allow_import: bool = False) -> nn.Module:
    """Load what `save_pruned` wrote: the same `state_dict`, bit by bit, eval mode, on the CPU.

    Builds the architecture, traces it, compares the fingerprint, cuts it to the mask and loads the
    weights. Nothing is unpickled. The checks find damage and mix-ups; they are no signature:
    whoever can write the folder can write a valid one.

    Args:
        path: The folder.
        allow_import: Import and call the architecture of the recipe if it is a "module:callable".
            Off by default, because this lets the file choose which code runs; architectures that
            are registered tasks, or known networks of torchvision and timm, need no permission.

    Raises:
        FileNotFoundError: There is no such folder, or one of its files is missing.
        ValueError: A file is truncated, altered or of another format, or the architecture is
            unknown, not allowed, or no longer the one that was saved.
    """
    folder = Path(path)
    # Together, lest another process replaces the folder in between.
    with locked_folder(folder.parent, shared=True):
        recipe = read_recipe(folder)
        weights = _read(folder / WEIGHTS_FILE)
    keep = recipe.keep_mask()
    digest = hashlib.sha256(weights).hexdigest()
    if digest != recipe.weights_sha256:
        raise ValueError(
            f"{folder / WEIGHTS_FILE}: damaged or not of this recipe "
            f"(sha256 {digest[:12]}..., the recipe says {recipe.weights_sha256[:12]}...)"
        )
    try:
        state = load(weights)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS_FILE}: not a safetensors file ({error})") from error
    try:
        builder = _builder_of(recipe, allow_import)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    dense = _build(builder, recipe.architecture)
    graph = ChannelGraph.trace(dense, torch.zeros(1, *recipe.input_shape))
    if graph.fingerprint != recipe.fingerprint:
        raise ValueError(
            f"{folder}: architecture {recipe.architecture!r} is not the one that was saved "
            f"(fingerprint {graph.fingerprint[:9]}..., the recipe says {recipe.fingerprint[:9]}...)"
        )
    try:
        _check_shapes(state, graph, keep)
        pruned = graph.prune(dense, keep).eval()
        # assign: tensors come as they were saved, in their dtype, and are not converted.
        pruned.load_state_dict(state, assign=True)
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{folder}: weights and recipe do not fit together: {error}") from error
    return pruned


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """The recipe in a folder, checked for form, without building anything.

    Raises:
        FileNotFoundError: There is no recipe there.
        ValueError: It is damaged, altered, too large or of another format.
    """
    file = Path(path) / RECIPE_FILE
    content = _read(file, RECIPE_LIMIT)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error})") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{file}: not a recipe of format {FORMAT}")
    checksum = values.pop("checksum", None)
    expected = {field.name for field in fields(Recipe)}
    if set(values) != expected:
        raise ValueError(
            f"{file}: the keys {sorted(set(values) ^ expected)} are missing or too many"
        )
    if checksum != _checksum(values):
        raise ValueError(f"{file}: the contents do not match their checksum; damaged or altered")
    kinds: dict[str, type | tuple[type, ...]] = {
        "architecture": str,
        "input_shape": list,
        "fingerprint": str,
        "channels": int,
        "keep": str,
        "counts": dict,
        "weights_sha256": str,
        "versions": dict,
        "extra": dict,
    }
    for name, kind in kinds.items():
        if not isinstance(values[name], kind):
            raise ValueError(f"{file}: {name} is {values[name]!r}, which is of the wrong type")
    shape = values["input_shape"]
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise ValueError(f"{file}: input_shape={shape!r}; allowed: positive integers")
    if math.prod(shape) > INPUT_LIMIT:
        raise ValueError(f"{file}: input_shape={shape!r}; allowed: up to {INPUT_LIMIT} numbers")
    return Recipe(**(values | {"input_shape": tuple(shape)}))


@dataclass(frozen=True)
class _Builder:
    """How an architecture is made; what the architecture does not say is None."""

    build: Callable[[], Any]
    input_shape: tuple[int, ...] | None = None
    source: Source | None = None


def _is_task(architecture: str) -> bool:
    return ":" not in architecture


def saved_task(recipe: Recipe, *, allow_import: bool = False) -> Task:
    """The task that a network was saved from: the registered one, or made of the stored source.

    Args:
        recipe: Of the network.
        allow_import: As for `load_pruned`.

    Raises:
        ValueError: It is not registered, and nothing is stored of which it can be made.
    """
    if recipe.architecture in task_names() or SOURCE not in recipe.extra:
        return get_task(recipe.architecture)
    source = Source.from_json(recipe.extra[SOURCE])
    if is_code(source.model) and not allow_import:
        raise ValueError(
            f"task {recipe.architecture!r} is made of the code {source.model!r}; register it, or "
            "pass allow_import=True if you trust this folder and want the code run"
        )
    return task_from(source, name=recipe.architecture)


def _builder_of(recipe: Recipe, allow_import: bool) -> _Builder:
    """How the architecture of a recipe is made; code is run only if that is allowed."""
    if _is_task(recipe.architecture) and SOURCE in recipe.extra:
        task = saved_task(recipe, allow_import=allow_import)
        return _Builder(task.build, task.input_shape)
    if not _is_task(recipe.architecture) and not allow_import:
        raise ValueError(
            f"architecture {recipe.architecture!r} is no registered task; register it, or pass "
            "allow_import=True if you trust this folder and want it imported"
        )
    return _builder(recipe.architecture)


def _builder(architecture: str) -> _Builder:
    """Look up a task, or resolve "module:callable"; paths and private names are refused."""
    if _is_task(architecture):
        try:
            task = get_task(architecture)
        except ValueError as error:
            raise ValueError(f"architecture={architecture!r}: {error}") from error
        return _Builder(task.build, task.input_shape, task.source)
    if not _IMPORT_PATH.fullmatch(architecture):
        raise ValueError(
            f"architecture={architecture!r} is not allowed; give the name of a registered task or "
            "'package.module:callable'"
        )
    module, _, name = architecture.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"architecture={architecture!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"architecture={architecture!r} is not callable")
    return _Builder(found)


def _build(builder: _Builder, architecture: str) -> nn.Module:
    """The dense network in eval mode, with weights that mean nothing."""
    # They are overwritten or thrown away; the caller's random stream must not move for them.
    with torch.random.fork_rng(devices=[]):
        module = builder.build()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"architecture={architecture!r} returned {type(module).__name__}, not a torch.nn.Module"
        )
    return module.eval()


def _check_shapes(
    state: Mapping[str, torch.Tensor], graph: ChannelGraph, keep: NDArray[np.bool_]
) -> None:
    """Every tensor has the name and shape that the mask leaves."""
    if np.any(graph.counts(keep) == 0):
        raise ValueError("keep leaves a group without a channel")
    expected = {name: list(shape) for name, shape in graph.shapes.items()}
    for slot in graph.slots:
        owned = slot.channels >= 0
        expected[slot.tensor][slot.dim] = int(np.sum(~owned) + np.sum(keep[slot.channels[owned]]))
    for name, shape in expected.items():
        if name in state and list(state[name].shape) != shape:
            raise ValueError(
                f"{name} has shape {tuple(state[name].shape)}; with this mask it has {tuple(shape)}"
            )


def _untied(state: Mapping[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """Tensors under all their names, each in storage of its own, as the format asks for."""
    seen: set[int] = set()
    result = []
    for name, tensor in state.items():
        shared = tensor.untyped_storage().data_ptr() in seen
        seen.add(tensor.untyped_storage().data_ptr())
        result.append((name, tensor.clone() if shared else tensor))
    return result


def _encode(recipe: Recipe) -> bytes:
    """The recipe as JSON with a checksum over everything else."""
    try:
        values = json.loads(json.dumps(asdict(recipe), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra: only finite JSON values can be stored ({error})") from error
    text = json.dumps(values | {"checksum": _checksum(values)}, indent=2) + "\n"
    if len(text) > RECIPE_LIMIT:
        raise ValueError(f"extra: the recipe would have {len(text)} bytes; allowed: {RECIPE_LIMIT}")
    return text.encode("utf-8")


def _checksum(values: Mapping[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def _read(file: Path, limit: int | None = None) -> bytes:
    """The whole file, if it is no larger than `limit` bytes."""
    if not file.is_file():
        raise FileNotFoundError(
            f"{file}: no such file; a saved network is a folder with both files"
        )
    with file.open("rb") as stream:
        content = stream.read() if limit is None else stream.read(limit + 1)
    if limit is not None and len(content) > limit:
        raise ValueError(f"{file}: larger than the {limit} bytes that are allowed")
    return content


def _check_replaceable(folder: Path) -> None:
    """`folder` is free, empty, or something that `save_pruned` wrote."""
    with locked_folder(folder.parent, shared=True):
        if not folder.exists() and not folder.is_symlink():
            return
        if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {
            WEIGHTS_FILE,
            RECIPE_FILE,
        }:
            return
    raise FileExistsError(
        f"path={str(folder)!r} exists and is not a saved network; it is left alone"
    )


def _write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make `folder` with these files by renaming a complete temporary one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    named = folder.with_name(folder.name + NEW)
    fresh = temporary_name(named, NEW)
    retired = fresh.with_suffix(OLD)
    with contextlib.ExitStack() as claims:
        try:
            with locked_folder(folder.parent):
                _clear(folder)
                fresh.mkdir()
                claims.enter_context(locked_folder(fresh))
            for name, content in files.items():
                with (fresh / name).open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
            with locked_folder(folder.parent):
                # A folder cannot be renamed onto one that has files in it.
                with contextlib.suppress(FileNotFoundError):
                    folder.rename(retired)
                try:
                    fresh.rename(folder)
                except BaseException:
                    if retired.exists():
                        retired.rename(folder)
                    raise
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, f"not written: {error.strerror}", str(folder)) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            if folder.exists():
                shutil.rmtree(retired, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Remove what killed processes left of `folder`; an old one whose place is empty goes back."""
    for left in abandoned(folder.with_name(folder.name + OLD), OLD):
        if folder.exists():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.rename(folder)
    for left in abandoned(folder.with_name(folder.name + NEW), NEW):
        shutil.rmtree(left, ignore_errors=True)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
