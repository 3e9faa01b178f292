"""The table of faults: every row names tests that are there, and every test has a row."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TABLE = HERE / "README.md"
ROW = re.compile(r"^\| (?P<fault>[^|]+) \| (?P<what>[^|]+) \| (?P<tests>[^|]+) \|$")


def rows() -> list[tuple[str, list[str]]]:
    """Faults, and the tests that each names as `file::test`."""
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        match = ROW.match(line)
        if match and match["fault"] not in ("Fault", "---"):
            found.append((match["fault"], re.findall(r"`([^`]+)`", match["tests"])))
    return found


def named_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize(("fault", "named"), rows())
def test_every_fault_names_tests_that_exist(fault: str, named: list[str]) -> None:
    assert named, fault
    for name in named:
        file, _, test = name.partition("::")
        (path,) = HERE.parent.rglob(file)
        assert test in named_in(path), name


def test_every_test_of_a_fault_has_a_row() -> None:
    named = {name for _, tests in rows() for name in tests}
    for path in sorted(HERE.glob("test_*.py")):
        if path != Path(__file__):
            missing = {f"{path.name}::{test}" for test in named_in(path)} - named
            assert not missing


def test_the_table_says_how_many_faults_and_kills_there_are() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert f"{len(rows())} faults" in text and "100 kills" in text
