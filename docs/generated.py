"""What the pages take from the code: environments' docstrings, and pictures of channel graphs.

A Sphinx extension. A page of an environment is its docstring, which is Markdown in Farama's
template; a line `{docstring of module:Class}` in a page stands for it, and `{facts about Id-v0}`
for the table of spaces that Farama's pages open with. Nothing of that is written to disk, so
nothing can go stale.
"""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

_DOCSTRING = re.compile(r"^\{docstring of (?P<module>[\w.]+):(?P<name>\w+)\}$", re.MULTILINE)
_FACTS = re.compile(r"^\{facts about (?P<id>[\w-]+)\}$", re.MULTILINE)


def filled(text: str) -> str:
    """A page with what the code has to say put into it."""
    text = _DOCSTRING.sub(lambda found: _docstring(found["module"], found["name"]), text)
    return _FACTS.sub(lambda found: _facts(found["id"]), text)


def _docstring(module: str, name: str) -> str:
    """The docstring, less its first line, which the page has as its summary."""
    return _markdown(getattr(import_module(module), name)).split("\n", 1)[1]


def _markdown(documented: Any) -> str:
    text = inspect.getdoc(documented)
    if not text or "\n## " not in text:
        raise ValueError(f"{documented!r} has no docstring in Farama's template")
    return text


def _facts(env_id: str) -> str:
    """What Gymnasium knows of an environment that is made without arguments."""
    import gymnasium as gym

    import pruning_env  # noqa: F401  (registers the environments)

    env = gym.make(env_id)
    rows = {
        "Summary": _markdown(env.unwrapped).split("\n", 1)[0],
        "Action space": f"`{env.action_space}`",
        "Observation space": _short(str(env.observation_space)),
        "Render modes": ", ".join(f"`{mode}`" for mode in env.metadata["render_modes"]),
        "Import": f'`import pruning_env; gym.make("{env_id}")`',
    }
    env.close()
    lines = ["| by default | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())]
    return "\n".join(lines)


def _short(space: str) -> str:
    """A box of many different bounds is printed with all of them; its shape is enough here."""
    shortened = re.sub(r"\[.*?\]", "...", space, flags=re.DOTALL)
    return f"`{shortened}`"


def _fill_page(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = filled(source[0])


def _refer_to_page(
    app: Sphinx, what: str, name: str, documented: Any, options: Any, lines: list[str]
) -> None:
    """In the reference, which is no Markdown, an environment's docstring is its first line."""
    if "## Description" in lines:
        lines[:] = [lines[0], "", "All about it is on its page."]


def _draw(app: Sphinx) -> None:
    from docs.pictures import draw_all

    draw_all(Path(app.srcdir) / "_generated")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to Sphinx."""
    app.connect("builder-inited", _draw)
    app.connect("source-read", _fill_page)
    # Before napoleon, which would take the headings for its own.
    app.connect("autodoc-process-docstring", _refer_to_page, priority=400)
    return {"parallel_read_safe": True}
