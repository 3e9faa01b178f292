"""Disks that are full, writers that were killed or write at once, homes that cannot be written."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pruning_env.files import append_line, atomic_path, atomic_write
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tabular.table import load_table, save_table
from pruning_env.tasks import data
from pruning_env.tasks.data import load_npz
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import load_pruned, save_pruned
from tests.helpers.paths import ROOT

TASK = "digits-resnet8"


def in_a_fork(action: Callable[[], object]) -> int:
    """How a copy of this process ends that runs `action`; negative: by that signal.

    A fresh interpreter would import torch for seconds.
    """
    child = os.fork()
    if child == 0:
        code = 70
        torch.set_num_threads(1)  # others do not survive a fork
        try:
            action()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def limit_files(size: int) -> None:
    """No file may grow beyond `size` bytes in this process: writes fail as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def archive(path: Path) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as file:
        file.writestr("part", bytes(10_000))


WRITERS: dict[str, Callable[[Path], object]] = {
    "text.md": lambda path: atomic_write(path, "x" * 5_000),
    "checkpoint.zip": archive,
    "rows.jsonl": lambda path: append_line(path, "y" * 3_000),
    "table.npz": lambda path: save_table(load_table(), path),
    "pruned": lambda path: saved(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_what_was_there(
    name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    before = b"" if name in ("table.npz", "pruned") else b'{"row": 1}\n' * 200
    if before:
        path.write_bytes(before)

    def write() -> None:
        limit_files(4_000)
        pattern = rf"not written: File too large: '.*{re.escape(name)}'"
        with pytest.raises(OSError, match=pattern):
            WRITERS[name](path)

    assert in_a_fork(write) == 0
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == ([before] if before else [])


def test_a_device_without_room_is_named_too(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(OSError, match=r"not written: No space left on device.*row\.json") as error:
        with atomic_path(tmp_path / "row.json"), open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


# Writers that were killed


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    def killed() -> None:
        with atomic_path(tmp_path / "row.json") as path:
            path.write_text("half")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(os, "fsync", lambda _: os.kill(os.getpid(), signal.SIGKILL))
                saved(tmp_path / "pruned")

    assert in_a_fork(killed) == -signal.SIGKILL
    assert len(list(tmp_path.glob(".row-*.json"))) == len(list(tmp_path.glob(".pruned-*.new"))) == 1
    bystander = tmp_path / ".row-mine.json"
    bystander.write_text("not ours")
    atomic_write(tmp_path / "row.json", "whole")
    saved(tmp_path / "pruned")
    assert {path.name for path in tmp_path.iterdir()} == {"row.json", "pruned", bystander.name}


def test_what_a_living_writer_has_not_finished_is_left_to_it(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "row.json") as first:
        first.write_text("first")
        atomic_write(tmp_path / "row.json", "second")
        assert first.exists()
    assert (tmp_path / "row.json").read_text() == "first"


def test_a_network_whose_replacement_was_killed_half_way_is_put_back(tmp_path: Path) -> None:
    saved(tmp_path / "pruned")
    content = {path.name: path.read_bytes() for path in (tmp_path / "pruned").iterdir()}
    # Between its two renames a writer has moved the old folder away.
    (tmp_path / "pruned").rename(tmp_path / ".pruned-1-0123abcd.old")

    def too_large() -> None:
        limit_files(4_000)
        with pytest.raises(OSError, match="not written"):
            saved(tmp_path / "pruned")

    assert in_a_fork(too_large) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "pruned").iterdir()} == content
    assert [path.name for path in tmp_path.iterdir()] == ["pruned"]


# Several processes


def saved(path: Path, share: float = 0.5, seed: int = 0) -> Path:
    task = get_task(TASK)
    model = task.model()
    graph = ChannelGraph.trace(model, task.example_input())
    keep = graph.random_keep(share, np.random.default_rng(seed))
    return save_pruned(path, graph.prune(model, keep), graph, keep, architecture=TASK)


def _save_again_and_again(path: Path, seed: int, times: int, start: Any) -> None:
    torch.set_num_threads(1)
    task = get_task(TASK)
    model = task.model()
    graph = ChannelGraph.trace(model, task.example_input())
    keep = graph.random_keep(0.5, np.random.default_rng(seed))
    start.wait()
    for _ in range(times):
        save_pruned(path, graph.prune(model, keep), graph, keep, architecture=TASK)


def test_processes_that_save_to_one_path_and_load_from_it_never_meet_half_of_one(
    tmp_path: Path,
) -> None:
    path = saved(tmp_path / "pruned")
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    writers = [
        context.Process(target=_save_again_and_again, args=(path, seed, 15, start))
        for seed in (1, 2)
    ]
    for writer in writers:
        writer.start()
    start.wait(60)
    loaded = 0
    while any(writer.is_alive() for writer in writers):
        load_pruned(path)
        loaded += 1
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0] and loaded
    assert [entry.name for entry in tmp_path.iterdir()] == ["pruned"]


def _replace_data(path: Path, times: int) -> None:
    for turn in range(times):
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays(turn))


def arrays(turn: int) -> dict[str, Any]:
    labels = np.arange(60) % 3
    images = np.full((60, 4, 4), turn % 250, np.uint8)
    return {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}


def test_a_data_folder_that_two_processes_share_is_read_whole_while_it_is_replaced(
    tmp_path: Path,
) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays(0))
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_replace_data, args=(path, 100)) for _ in range(2)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        splits = load_npz("mine", tmp_path)
        assert len(splits.test.images.unique()) == 1
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.npz"]


def _append(path: Path, letter: str) -> None:
    for _ in range(200):
        append_line(path, letter * 5_000)


def test_processes_that_append_to_one_file_do_not_mix_their_lines(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    path = tmp_path / "rows.jsonl"
    writers = [context.Process(target=_append, args=(path, letter)) for letter in "abc"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(letter * 5_000 for letter in "abc" for _ in range(200))


# Homes and networks

COMMANDS = """
import resource, sys
from pruning_agents.cli.main import main
trained = main(["train", "--agent", "random-search", "--evaluations", "2", "--no-progress",
                "--budget", "params=0.9", "--out", {trained!r}])
assert trained == 0
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))
main(["prune", "--out", {pruned!r}])
"""


@pytest.fixture(scope="module")
def at_a_loss(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder, and the end of a process that trained there without a home, then had a full disk.

    A fresh interpreter: it computes gradients, which a fork of one that has done so cannot.
    """
    folder = tmp_path_factory.mktemp("loss")
    (folder / "home").write_text("")  # not even root can make a folder in a file
    ended = subprocess.run(
        [
            *(sys.executable, "-c"),
            COMMANDS.format(trained=str(folder / "trained"), pruned=str(folder / "pruned")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HOME": str(folder / "home"), "PRUNING_ENV_DATA": ""},
    )
    return folder, ended


def test_a_home_that_cannot_be_written_is_not_needed(at_a_loss: tuple[Path, Any]) -> None:
    folder, ended = at_a_loss
    assert (folder / "trained" / "result.json").exists(), ended.stderr


def test_a_user_without_a_home_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert data._cache_root().name == "pruning-env"


@pytest.mark.parametrize("load", [data.load_cifar10, data.load_mnist])
def test_a_download_without_network_names_the_variable_to_set(
    load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRUNING_ENV_DATA", raising=False)
    monkeypatch.setattr(data, "CACHE_ROOT", tmp_path / "cache")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    with pytest.raises(ConnectionError, match="could not be downloaded") as error:
        load(download=True)
    assert "PRUNING_ENV_DATA" in str(error.value) and "data_root=" in str(error.value)
    assert str(tmp_path / "cache") in str(error.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_download_into_a_home_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").write_text("a file")
    monkeypatch.delenv("PRUNING_ENV_DATA", raising=False)
    monkeypatch.setattr(data, "CACHE_ROOT", tmp_path / "home" / ".cache")
    with pytest.raises(ConnectionError, match=r"downloaded into .*home") as error:
        data.load_cifar10(download=True)
    assert "PRUNING_ENV_DATA" in str(error.value)


def test_a_command_whose_disk_is_full_says_so_in_a_line(at_a_loss: tuple[Path, Any]) -> None:
    folder, ended = at_a_loss
    assert ended.returncode == 3
    assert re.search(r"cnnprune prune: error: .*File too large.*pruned", ended.stderr)
    assert "Traceback" not in ended.stderr
    assert {path.name for path in folder.iterdir()} <= {"home", "trained", "pruned"}
    assert not [path for path in (folder / "pruned").rglob("*") if path.is_file()]
