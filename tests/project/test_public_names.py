"""What pages, notebooks, plug-in and recipes import comes from the public faces only.

Everything inside the rooms may move; a reader's program must not break when it does.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pruning_agents
import pruning_env
import pruning_env.wrappers
from docs.generated import filled
from tests.helpers.pages import WRITTEN, blocks, name_of
from tests.helpers.paths import ROOT

FACES = {
    "pruning_env": pruning_env,
    "pruning_env.wrappers": pruning_env.wrappers,
    "pruning_agents": pruning_agents,
}
OURS = {"pruning_env", "pruning_agents", "benchmarks"}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PLUGIN = sorted((ROOT / "tests" / "plugin").rglob("*.py"))


def sources(file: Path) -> list[str]:
    """The Python in a page, a notebook or a module, that of docstrings' examples included."""
    if file.suffix == ".ipynb":
        cells = json.loads(file.read_text())["cells"]
        return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    if file.suffix == ".py":
        return [file.read_text()]
    text = filled(file.read_text())
    examples = "\n".join(re.findall(r"^ *(?:>>>|\.\.\.) ?(.*)$", text, re.MULTILINE))
    return [examples, *(block for block in blocks(file, "python") if ">>>" not in block)]


def imported(source: str) -> Iterator[tuple[str, str]]:
    """(module, name) of what a piece of Python imports of this project; no name: all of it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [(alias.name, "") for alias in node.names]
        else:
            continue
        yield from (each for each in found if each[0].partition(".")[0] in OURS)


def private(source: str) -> list[tuple[str, str]]:
    """What it imports from elsewhere than the public faces, or that is not public there."""
    return [
        (module, name)
        for module, name in imported(source)
        if module not in FACES or (name and name not in FACES[module].__all__)
    ]


@pytest.mark.parametrize("file", [*WRITTEN, *NOTEBOOKS, *PLUGIN], ids=name_of)
def test_what_others_read_imports_public_names_only(file: Path) -> None:
    assert [found for source in sources(file) for found in private(source)] == []


def test_an_import_from_inside_a_room_is_seen() -> None:
    for line in (
        "from pruning_env.graph.channel_graph import ChannelGraph",
        "import benchmarks",
        "def f():\n    import pruning_agents.search.registry as registry",
        "from pruning_env import graph",
        "from pruning_agents import no_such_name",
    ):
        assert private(line), line
    for line in (
        "import pruning_env, pruning_agents as agents",
        "from pruning_env import ChannelGraph",
        "from pruning_env.wrappers import CostReturn as Cost",
        "import numpy",
    ):
        assert not private(line), line
