"""Install what is missing, run what has no good row, and keep the rows."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from tqdm import tqdm

from benchmarks.clients.catalogue import CLIENTS, ENVIRONMENTS, Client
from benchmarks.clients.install import install
from benchmarks.clients.rows import ClientRow, read_rows
from benchmarks.clients.table import to_markdown
from pruning_agents.search.rows import provenance
from pruning_env.files import append_line, atomic_write

__all__ = ["ClientsSettings", "run_clients"]

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ClientsSettings:
    """What to run, and where to write.

    Attributes:
        clients: names; empty for all.
        folder: of the virtual environments.
        timeout: seconds that one program may take.
        out: file of rows; the table goes beside it.
        resume: leave out what has a row without an error.
    """

    clients: tuple[str, ...] = ()
    folder: Path = Path("runs/clients")
    timeout: float = 900.0
    out: Path = Path("runs/clients.jsonl")
    resume: bool = True


def run_clients(settings: ClientsSettings, command: str, console: Console) -> int:
    """Run what is missing; write the table; 1 if something has an error, else 0.

    Raises:
        ValueError: an unknown client; nothing has run then.
    """
    chosen = _chosen(settings.clients)
    rows = read_rows(settings.out)
    done = {key for key, row in rows.items() if not row.error} if settings.resume else set()
    missing = [
        (client, env_id)
        for client in chosen
        for env_id in ENVIRONMENTS
        if (client.name, env_id) not in done
    ]
    for row in tqdm(_rows(missing, settings, command), total=len(missing), unit="run"):
        append_line(settings.out, row.to_json())
        if row.error:
            console.print(f"{row.client}, {row.env_id}: {row.error}", markup=False, soft_wrap=True)
    ordered = tuple(read_rows(settings.out).values())
    table = settings.out.with_suffix(".md")
    atomic_write(table, to_markdown(ordered))
    console.print(f"Written to {settings.out} and {table}", markup=False, soft_wrap=True)
    return int(any(row.error for row in ordered))


def _chosen(names: Sequence[str]) -> list[Client]:
    known = {client.name: client for client in CLIENTS}
    for name in names:
        if name not in known:
            raise ValueError(f"clients: {name!r} is not known; known: {', '.join(known)}")
    return [known[name] for name in names or known]


def _rows(
    missing: Sequence[tuple[Client, str]], settings: ClientsSettings, command: str
) -> Iterator[ClientRow]:
    origin = provenance(command)
    for client, env_id in missing:
        folder = (settings.folder / client.name).resolve()
        try:
            python = install(client, folder)
        except RuntimeError as refused:
            yield ClientRow(client.name, "-", "-", env_id, str(refused), 0.0, origin)
            continue
        start = time.perf_counter()
        error = _run(client, env_id, python, folder, settings.timeout)
        seconds = time.perf_counter() - start
        version, gymnasium = (_version(python, name) for name in (client.package, "gymnasium"))
        yield ClientRow(client.name, version, gymnasium, env_id, error, seconds, origin)


def _run(client: Client, env_id: str, python: Path, folder: Path, timeout: float) -> str:
    """Run its program in `folder`; "" or the last line of what went wrong, which is kept there."""
    paths = [str(_ROOT), str(_ROOT / "agents"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    script = f"benchmarks.clients.scripts.{client.script}"
    with (folder / f"{env_id}.log").open("w") as log:
        try:
            code = subprocess.run(
                [str(python), "-m", script, env_id],
                cwd=folder,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return f"not done after {timeout:.0f} s"
    if code == 0:
        return ""
    said = (folder / f"{env_id}.log").read_text(errors="replace").strip().splitlines()
    return said[-1] if said else f"exit code {code}"


def _version(python: Path, package: str) -> str:
    """As the client sees it; "-" for none."""
    if not package:
        return "-"
    code = f"from importlib.metadata import version; print(version({package!r}))"
    found = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "-"
