"""The map of the code in CONTRIBUTING.md: made from the packages' docstrings, whole, and true."""

from __future__ import annotations

import ast
import re

import pytest

from docs import rooms
from tests.helpers.paths import ROOT


def test_the_map_of_the_code_is_made_from_the_packages_docstrings() -> None:
    text = rooms.PAGE.read_text()
    assert rooms.with_map(text) == text, "run `python -m docs.rooms`"


def test_the_map_has_every_room_and_only_those() -> None:
    for package, listed in rooms.ROOMS.items():
        found = {path.parent.name for path in (ROOT / package).glob("*/__init__.py")}
        assert found == set(listed)


def test_the_map_tells_of_every_room_where_to_begin() -> None:
    for package, listed in rooms.ROOMS.items():
        for room in listed:
            folder = ROOT / package / room
            docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
            assert "Begin with" in docstring, room
            for name in re.findall(r"`(\w+\.py|\w+/)`", docstring):
                assert (folder / name).exists(), f"{package}/{room} has no {name}"


def test_a_page_without_the_markers_of_the_map_is_refused() -> None:
    with pytest.raises(ValueError, match=r"docs\.rooms"):
        rooms.with_map("# Contributing\n")
