"""`python -m benchmarks clients`: what is run, what is kept, and what is left out the next time."""

from __future__ import annotations

import dataclasses
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.clients import run
from benchmarks.clients.catalogue import CLIENTS, ENVIRONMENTS, Client
from benchmarks.clients.install import install
from benchmarks.clients.rows import ClientRow, read_rows
from benchmarks.clients.run import ClientsSettings, run_clients
from benchmarks.clients.table import to_markdown
from pruning_agents.search.rows import Provenance
from tests.helpers.paths import ROOT

ORIGIN = Provenance("python -m benchmarks clients", "now", {"python": "3"}, "a machine", "abc")
SCRIPTS = ROOT / "benchmarks" / "clients" / "scripts"


def row(client: str, env_id: str, error: str = "") -> ClientRow:
    return ClientRow(client, "1.0", "1.4", env_id, error, 3.0, ORIGIN)


def test_every_client_has_a_program_and_every_program_a_client() -> None:
    listed = {client.script for client in CLIENTS}
    assert listed == {path.stem for path in SCRIPTS.glob("*.py")} - {"__init__", "short"}
    assert len({client.name for client in CLIENTS}) == len(CLIENTS)


def test_a_row_comes_back_from_its_line() -> None:
    one = row("torchrl", ENVIRONMENTS[0], "ValueError: no")
    assert ClientRow.from_json(one.to_json()) == one
    with pytest.raises(ValueError, match="not a row of a client"):
        ClientRow.from_json('{"client": "torchrl"}')


def test_the_table_has_a_line_per_client_and_says_what_failed() -> None:
    first, second = ENVIRONMENTS
    page = to_markdown(
        [row("torchrl", first), row("torchrl", second, "a | b"), row("minari", first)]
    )
    assert "| torchrl | 1.0 | 1.4 |" in page and "| 3 s | error |" in page
    assert f"torchrl on {second}: a / b" in page
    assert "| 3 s | - |" in page and "| optuna |" not in page
    assert "Not run yet: cleanrl-style, tianshou, " in page
    with pytest.raises(ValueError, match="rows is empty"):
        to_markdown([])


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What would have been run, without virtual environments; tianshou cannot be installed."""
    found: list[tuple[str, str]] = []

    def program(client: Client, env_id: str, *_: object) -> str:
        found.append((client.name, env_id))
        return "it broke" if client.name == "optuna" else ""

    def installed(client: Client, folder: Path) -> Path:
        if client.name == "tianshou":
            raise RuntimeError("uv pip install: no index")
        return Path(sys.executable)

    monkeypatch.setattr(run, "install", installed)
    monkeypatch.setattr(run, "_run", program)
    monkeypatch.setattr(run, "_version", lambda *_: "1.0")
    return found


def test_what_has_a_good_row_is_left_out_and_errors_are_tried_again(
    tmp_path: Path, tried: list[tuple[str, str]]
) -> None:
    names = ("torchrl", "optuna", "tianshou")
    settings = ClientsSettings(clients=names, folder=tmp_path, out=tmp_path / "rows.jsonl")
    console = Console(quiet=True)
    assert run_clients(settings, "a command", console) == 1
    assert tried == [(name, env_id) for name in names[:2] for env_id in ENVIRONMENTS]
    errors = {key[0]: found.error for key, found in read_rows(settings.out).items()}
    assert errors == {"torchrl": "", "optuna": "it broke", "tianshou": "uv pip install: no index"}
    assert "| torchrl |" in settings.out.with_suffix(".md").read_text()
    tried.clear()
    run_clients(settings, "a command", console)
    assert {name for name, _ in tried} == {"optuna"}
    tried.clear()
    assert run_clients(dataclasses.replace(settings, resume=False), "a command", console) == 1
    assert {name for name, _ in tried} == {"torchrl", "optuna"}


def test_an_unknown_client_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    settings = ClientsSettings(clients=("gym",), out=tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match=r"'gym' is not known; known: cleanrl-style"):
        run_clients(settings, "a command", Console(quiet=True))


@pytest.mark.skipif(importlib.util.find_spec("uv") is None, reason="uv makes the environments")
def test_a_client_sees_what_is_installed_here_from_an_environment_of_its_own(
    tmp_path: Path,
) -> None:
    client = Client("bare", "nothing", "cleanrl_style")
    python = install(client, tmp_path / "bare")
    code = "import sys, importlib.util as u; print(sys.prefix, u.find_spec('torch') is not None)"
    said = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(tmp_path / "bare"), "True"]
    marker = tmp_path / "bare" / "kept"
    marker.touch()
    assert install(client, tmp_path / "bare") == python and marker.exists()


@pytest.mark.slow
def test_a_program_that_fails_leaves_its_last_line(tmp_path: Path) -> None:
    client = Client("bare", "nothing", "cleanrl_style")
    error = run._run(client, "NoSuch-v0", Path(sys.executable), tmp_path, 300.0)
    assert "NoSuch" in error
    assert run._run(client, ENVIRONMENTS[1], Path(sys.executable), tmp_path, 300.0) == ""
