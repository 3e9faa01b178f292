"""The pages that people read, and the code that stands in them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from tests.helpers.paths import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    page for page in DOCS.rglob("*.md") if not page.relative_to(DOCS).parts[0].startswith("_")
)
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *PAGES]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of a language; those of a list are indented."""
    fence = rf"^( *)```{language}\n(.*?)^\1```"
    found = re.findall(fence, page.read_text(), re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]
