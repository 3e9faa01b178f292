"""Rows of clients as Markdown. Reads rows only."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.clients.catalogue import CLIENTS, ENVIRONMENTS
from benchmarks.clients.rows import ClientRow

__all__ = ["to_markdown"]


def to_markdown(rows: Sequence[ClientRow]) -> str:
    """A line per client, a column per environment, what failed in words, and the command.

    Raises:
        ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("rows is empty; a table needs at least one")
    found = {row.key: row for row in rows}
    titles = ("client", "version", "Gymnasium", "what is run", *ENVIRONMENTS)
    lines = [titles, ("---",) * 4 + ("---:",) * len(ENVIRONMENTS)]
    for client in CLIENTS:
        own = [found.get((client.name, env_id)) for env_id in ENVIRONMENTS]
        some = next((row for row in own if row is not None), None)
        if some is not None:
            cells = ["-" if row is None else _cell(row) for row in own]
            lines.append((client.name, some.version, some.gymnasium, client.what, *cells))
    parts = [
        "# What RL researchers bring",
        "Each client in a virtual environment of its own, run for a short while on each "
        "environment by a program of `benchmarks/clients/scripts/`; seconds with imports.",
        "\n".join(f"| {' | '.join(line)} |" for line in lines),
    ]
    parts += [f"{row.client} on {row.env_id}: {_plain(row.error)}" for row in rows if row.error]
    if absent := [c.name for c in CLIENTS if not any(row.client == c.name for row in rows)]:
        parts.append(f"Not run yet: {', '.join(absent)}.")
    commands = "\n".join(dict.fromkeys(row.provenance.command for row in rows))
    hardware = "; ".join(dict.fromkeys(row.provenance.hardware for row in rows))
    commits = ", ".join(dict.fromkeys(str(row.provenance.commit) for row in rows))
    parts += [f"```bash\n{commands}\n```", f"On {hardware}; commit {commits}."]
    return "\n\n".join(parts) + "\n"


def _cell(row: ClientRow) -> str:
    return "error" if row.error else f"{row.seconds:.0f} s"


def _plain(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")
