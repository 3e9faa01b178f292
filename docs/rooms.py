"""The map of the code in CONTRIBUTING.md, made from the docstrings of the packages.

`python -m docs.rooms` writes it; a test compares. A package of the three at the top is a room, its
docstring says what question it answers. Of the first two the order is that of imports: each room
imports from those above it. Docstrings are read, not imported, so that nothing has to be installed.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
ROOMS = {
    "pruning_env": (
        "graph",
        "tasks",
        "evaluation",
        "process",
        "envs",
        "tabular",
        "wrappers",
        "worlds",
    ),
    "agents/pruning_agents": (
        "search",
        "proposals",
        "ppo_lagrangian",
        "stock",
        "rl_pruner",
        "baselines",
        "zero_shot",
        "comparison",
        "compress",
        "cli",
    ),
    "benchmarks": (
        "agents",
        "state",
        "ablation",
        "constrained",
        "training",
        "reproduce",
        "proxies",
        "worlds",
        "zoo",
        "speed",
        "latency",
        "peers",
        "clients",
        "report",
    ),
}
"""By folder of a package: its rooms; in the first two each imports from those before it only."""
_START = "<!-- Made from the packages' docstrings by `python -m docs.rooms`; change those. -->\n"
_END = "<!-- End of what is made. -->\n"


def rooms_map() -> str:
    """The rooms as Markdown: a heading for each package, a paragraph for each room."""
    parts = []
    for package, rooms in ROOMS.items():
        parts.append(f"### `{package}/`\n\n{_docstring(ROOT / package)}")
        parts += [f"**`{room}/`**: {_docstring(ROOT / package / room)}" for room in rooms]
    return "\n\n".join(parts) + "\n"


def with_map(text: str) -> str:
    """A page whose part between the two markers is the map as it is now.

    Raises:
        ValueError: a marker is missing.
    """
    before, start, rest = text.partition(_START)
    _, end, after = rest.partition(_END)
    if not (start and end):
        raise ValueError(f"the page needs the lines {_START!r} and {_END!r}")
    return f"{before}{start}\n{rooms_map()}\n{end}{after}"


def _docstring(package: Path) -> str:
    """Of a package, by its folder."""
    text = ast.get_docstring(ast.parse((package / "__init__.py").read_text()))
    if not text:
        raise ValueError(f"{package} has no docstring")
    return text


if __name__ == "__main__":
    PAGE.write_text(with_map(PAGE.read_text()))
