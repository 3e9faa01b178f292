"""Pruned networks survive the disk bit by bit; damaged or foreign folders do not load."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks import storage
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import (
    RECIPE_FILE,
    RECIPE_LIMIT,
    WEIGHTS_FILE,
    load_pruned,
    read_recipe,
    save_pruned,
)
from tests.helpers.networks import jitter
from tests.helpers.paths import ROOT
from tests.helpers.small import small_model

SMALL = "tests.helpers.small:small_model"
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def graph() -> ChannelGraph:
    return ChannelGraph.trace(small_model(), torch.zeros(1, *SHAPE))


@pytest.fixture
def keep(graph: ChannelGraph) -> np.ndarray:
    return graph.random_keep(0.5, np.random.default_rng(1))


@pytest.fixture
def pruned(graph: ChannelGraph, keep: np.ndarray) -> nn.Module:
    model = small_model()
    jitter(model)
    return graph.prune(model, keep).eval()


@pytest.fixture
def saved(tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray) -> Path:
    return save_pruned(
        tmp_path / "net", pruned, graph, keep, architecture=SMALL, input_shape=SHAPE, extra={"a": 1}
    )


def rewrite(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit the recipe as someone would who knows the format, checksum included."""
    values = json.loads((folder / RECIPE_FILE).read_text())
    del values["checksum"]
    change(values)
    text = json.dumps(values | {"checksum": storage._checksum(values)})
    (folder / RECIPE_FILE).write_text(text)


def same_state(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return list(a) == list(b) and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


def test_a_network_loaded_in_a_fresh_process_gives_the_same_bits(tmp_path: Path) -> None:
    task = get_task("digits-resnet8")
    model = task.model()
    graph = ChannelGraph.trace(model, task.example_input())
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    pruned = graph.prune(model, keep).eval()
    folder = save_pruned(tmp_path / "net", pruned, graph, keep, architecture="digits-resnet8")
    images = torch.randn(16, *task.input_shape, generator=torch.Generator().manual_seed(0))
    torch.save(images, tmp_path / "images.pt")
    program = """
import sys, torch
from pruning_env.tasks.storage import load_pruned
model = load_pruned(sys.argv[1])
with torch.no_grad():
    outputs = model(torch.load(sys.argv[2]))
torch.save({"outputs": outputs, "names": list(model.state_dict())}, sys.argv[3])
"""
    arguments = [str(folder), str(tmp_path / "images.pt"), str(tmp_path / "outputs.pt")]
    root = ROOT
    environment = os.environ | {"PYTHONPATH": str(root)}
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, env=environment)
    result = torch.load(tmp_path / "outputs.pt")
    with torch.no_grad():
        assert torch.equal(result["outputs"], pruned(images))
    assert result["names"] == list(model.state_dict())


def test_loading_restores_every_tensor_and_eval_mode(saved: Path, pruned: nn.Module) -> None:
    loaded = load_pruned(saved, allow_import=True)
    assert same_state(loaded, pruned)
    assert not loaded.training


def test_a_loaded_network_can_be_trained(saved: Path) -> None:
    loaded = load_pruned(saved, allow_import=True)
    loaded.train()(torch.randn(4, *SHAPE)).sum().backward()
    assert all(p.grad is not None for p in loaded.parameters())


def test_double_precision_is_kept(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> None:
    double = pruned.double()
    folder = save_pruned(
        tmp_path / "net", double, graph, keep, architecture=SMALL, input_shape=SHAPE
    )
    assert same_state(load_pruned(folder, allow_import=True), double)


def test_the_recipe_gives_back_the_mask_and_what_was_stored_along(
    saved: Path, graph: ChannelGraph, keep: np.ndarray
) -> None:
    recipe = read_recipe(saved)
    assert np.array_equal(recipe.keep_mask(), keep)
    assert recipe.extra == {"a": 1}
    assert list(recipe.counts.values()) == graph.counts(keep).tolist()
    assert recipe.input_shape == SHAPE


def test_loading_leaves_the_random_stream_where_it_was(saved: Path) -> None:
    before = torch.get_rng_state()
    load_pruned(saved, allow_import=True)
    assert torch.equal(torch.get_rng_state(), before)


def test_saving_again_replaces_the_network(
    saved: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> None:
    with torch.no_grad():
        next(pruned.parameters()).add_(1)
    save_pruned(saved, pruned, graph, keep, architecture=SMALL, input_shape=SHAPE)
    assert same_state(load_pruned(saved, allow_import=True), pruned)
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize("file", [WEIGHTS_FILE, RECIPE_FILE])
@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_a_damaged_file_is_refused(saved: Path, file: str, damage: str) -> None:
    content = bytearray((saved / file).read_bytes())
    if damage == "one bit":
        content[-1] ^= 1  # tensor data in one file, in the other the end of the text
    else:
        del content[len(content) // 2 if damage == "truncated" else 0 :]
    (saved / file).write_bytes(content)
    with pytest.raises(ValueError, match=file):
        load_pruned(saved, allow_import=True)


@pytest.mark.parametrize("file", [WEIGHTS_FILE, RECIPE_FILE])
def test_a_missing_file_is_named(saved: Path, file: str) -> None:
    (saved / file).unlink()
    with pytest.raises(FileNotFoundError, match=file):
        load_pruned(saved, allow_import=True)


def test_an_altered_recipe_is_refused(saved: Path) -> None:
    text = (saved / RECIPE_FILE).read_text()
    (saved / RECIPE_FILE).write_text(text.replace('"a": 1', '"a": 2'))
    with pytest.raises(ValueError, match="checksum"):
        load_pruned(saved, allow_import=True)


def test_a_mask_that_does_not_fit_the_weights_is_refused(
    saved: Path, graph: ChannelGraph, keep: np.ndarray
) -> None:
    other = keep.copy()
    other[np.flatnonzero(~keep)[0]] = True
    mask = base64.b64encode(np.packbits(other).tobytes()).decode()
    rewrite(saved, lambda values: values.update(keep=mask))
    with pytest.raises(ValueError, match="do not fit"):
        load_pruned(saved, allow_import=True)


@pytest.mark.parametrize("mask", ["", "!!!!", "AA==", "A" * 400])
def test_a_mask_of_another_length_is_refused(saved: Path, mask: str) -> None:
    rewrite(saved, lambda values: values.update(keep=mask))
    with pytest.raises(ValueError, match="keep"):
        load_pruned(saved, allow_import=True)


def test_a_graph_with_another_fingerprint_is_refused(saved: Path) -> None:
    rewrite(saved, lambda values: values.update(fingerprint="0" * 64))
    with pytest.raises(ValueError, match="fingerprint"):
        load_pruned(saved, allow_import=True)


def test_another_architecture_is_refused(saved: Path) -> None:
    rewrite(saved, lambda values: values.update(architecture="digits-resnet8"))
    with pytest.raises(ValueError, match="fingerprint"):
        load_pruned(saved)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("input_shape", [1, -8, 8]),
        ("input_shape", ["1"]),
        ("input_shape", []),
        ("input_shape", 8),
        ("channels", "30"),
        ("keep", 3),
        ("format", 2),
        ("architecture", None),
        ("surplus", 1),
    ],
)
def test_a_recipe_of_another_form_is_refused(saved: Path, key: str, value: object) -> None:
    rewrite(saved, lambda values: values.update({key: value}))
    with pytest.raises(ValueError, match=RECIPE_FILE):
        load_pruned(saved, allow_import=True)


@pytest.mark.parametrize(
    "content", [b"{" + b" " * RECIPE_LIMIT + b"}", b"[" * 200_000, b"[]", b"\xff\xfe", b"{}"]
)
def test_a_recipe_that_is_no_small_json_object_is_refused(saved: Path, content: bytes) -> None:
    (saved / RECIPE_FILE).write_bytes(content)
    with pytest.raises(ValueError, match=RECIPE_FILE):
        load_pruned(saved, allow_import=True)


BAD_NAMES = [
    "",
    "no-such-task",
    "../tests/small.py",
    "../tests.small:small_model",
    "/tests/small:small_model",
    "tests..small:small_model",
    "tests.helpers.small:small_model()",
    "tests.helpers.small:small_model:x",
    "tests.helpers.small:__doc__",
    "tests.helpers.small:nothing",
    "no_such_package.module:build",
    "math:pi",
    "tests.helpers.small:small_splits",
    "tests.helpers.small:small_model\n",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_an_architecture_that_is_no_task_and_no_import_path_is_refused(
    saved: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray, name: str
) -> None:
    with pytest.raises(ValueError, match="architecture="):
        save_pruned(
            saved.parent / "other", pruned, graph, keep, architecture=name, input_shape=SHAPE
        )
    assert not (saved.parent / "other").exists()
    rewrite(saved, lambda values: values.update(architecture=name))
    with pytest.raises(ValueError, match="architecture="):
        load_pruned(saved, allow_import=True)


def test_nothing_is_imported_without_permission(saved: Path) -> None:
    rewrite(saved, lambda values: values.update(architecture="antigravity:build"))
    with pytest.raises(ValueError, match="allow_import=True"):
        load_pruned(saved)
    assert "antigravity" not in sys.modules


def test_the_input_shape_is_needed_for_an_import_path(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="input_shape=None"):
        save_pruned(tmp_path / "net", pruned, graph, keep, architecture=SMALL)


def test_a_model_pruned_with_another_mask_is_not_saved(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph
) -> None:
    with pytest.raises(ValueError, match="with this mask"):
        save_pruned(
            tmp_path / "net", pruned, graph, graph.full(), architecture=SMALL, input_shape=SHAPE
        )


def test_an_architecture_that_is_not_the_graphs_is_not_saved(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> None:
    with pytest.raises(ValueError, match="architecture='digits-resnet8'"):
        save_pruned(tmp_path / "net", pruned, graph, keep, architecture="digits-resnet8")


@pytest.mark.parametrize("extra", [{"x": float("nan")}, {"x": object()}, {"x": "y" * RECIPE_LIMIT}])
def test_extra_that_is_no_small_json_is_not_saved(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray, extra: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="extra"):
        save_pruned(
            tmp_path / "net",
            pruned,
            graph,
            keep,
            architecture=SMALL,
            input_shape=SHAPE,
            extra=extra,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_something_else_is_left_alone(
    tmp_path: Path, pruned: nn.Module, graph: ChannelGraph, keep: np.ndarray
) -> None:
    (tmp_path / "precious").write_text("x")
    with pytest.raises(FileExistsError, match="left alone"):
        save_pruned(tmp_path, pruned, graph, keep, architecture=SMALL, input_shape=SHAPE)
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.parametrize("where", ["fsync", "rename"])
def test_a_failure_while_writing_leaves_the_old_network_and_nothing_else(
    saved: Path,
    pruned: nn.Module,
    graph: ChannelGraph,
    keep: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    before = {entry.name: entry.read_bytes() for entry in saved.iterdir()}
    rename = Path.rename

    def fail(*_: object) -> None:
        raise OSError("disk full")

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            fail()
        return rename(self, target)

    if where == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="disk full"):
        save_pruned(saved, pruned, graph, keep, architecture=SMALL, input_shape=SHAPE)
    assert {entry.name: entry.read_bytes() for entry in saved.iterdir()} == before
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]
