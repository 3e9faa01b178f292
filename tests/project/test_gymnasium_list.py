"""The entry for Gymnasium's list of environments is what the list asks for, and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.helpers.pages import DOCS, blocks
from tests.helpers.paths import ROOT

PAGE = DOCS / "gymnasium-list.md"


@pytest.fixture
def entry() -> list[str]:
    """Its paragraphs."""
    (text,) = blocks(PAGE, "markdown")
    return [part.strip() for part in text.split("\n\n")]


def test_the_entry_has_a_name_with_a_link_a_version_and_two_to_five_sentences(
    entry: list[str],
) -> None:
    title, badges, description = entry
    assert re.fullmatch(r"- \[pruning-env: .*\]\(LINK\)", title)
    assert badges.startswith("![Gymnasium version dependency](https://img.shields.io/badge/")
    assert 2 <= len(re.findall(r"\.(?: |$)", description)) <= 5


def test_the_version_is_the_least_that_is_allowed(entry: list[str]) -> None:
    allowed = re.search(r'"gymnasium>=([\d.]+)', (ROOT / "pyproject.toml").read_text())
    assert allowed and f"/Gymnasium-v{allowed[1]}-blue" in entry[1]


def test_the_environments_of_the_entry_are_registered(entry: list[str]) -> None:
    import gymnasium as gym

    import pruning_env  # noqa: F401  (registers the environments)

    named = re.findall(r"`(\w+-v\d+)`", entry[2])
    assert named and all(name in gym.registry for name in named)


def test_the_picture_is_there() -> None:
    (picture,) = re.findall(r"!\[[^\]]+\]\((pictures/[^)]+)\)", PAGE.read_text())
    assert Path(DOCS / picture).stat().st_size > 0
