"""The notebooks: what is committed is whole and says nothing of who made it, and all cells run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra `notebooks`")
pytest.importorskip("nbclient", reason="needs the extra `notebooks`")

from nbformat import NotebookNode  # noqa: E402

from notebooks.execute import FOLDER, execute, notebooks  # noqa: E402

ROOT = FOLDER.parent
NAMES = [path.name for path in notebooks()]

#: A path from the root of a file system or from a home, and addresses of objects.
PRIVATE = re.compile(
    r"(?<![\w.)\]:/])(?:/(?:home|root|tmp|usr|var|opt|mnt|Users)\b|~/|[A-Z]:\\)|0x[0-9a-f]{6,}"
)


def load(name: str) -> NotebookNode:
    return nbformat.read(FOLDER / name, as_version=4)


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: NotebookNode) -> list[NotebookNode]:
    return [output for cell in code(notebook) for output in cell.outputs]


def texts(notebook: NotebookNode) -> list[str]:
    """Sources, and what the outputs say; not the pixels of pictures."""
    found = [cell.source for cell in notebook.cells]
    for output in outputs(notebook):
        found.append(output.get("text", ""))
        data = output.get("data", {})
        found += [str(data[kind]) for kind in data if not kind.startswith("image/")]
    return found


def shows_picture(output: NotebookNode) -> bool:
    return "image/png" in output.get("data", {})


def says_something(cell: NotebookNode) -> bool:
    """Beside what libraries tell of their first use on a machine, such as matplotlib's fonts."""
    return any(output.get("name") != "stderr" for output in cell.outputs)


def test_there_are_five_and_the_readme_lists_them_all() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05"]
    listed = re.findall(r"\]\((\d\d_\w+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert listed == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_was_run_from_top_to_bottom_and_ends_with_a_picture(name: str) -> None:
    notebook = load(name)
    nbformat.validate(notebook)
    assert [cell.execution_count for cell in code(notebook)] == [
        number + 1 for number in range(len(code(notebook)))
    ]
    shown = outputs(notebook)
    assert not [each for each in shown if each.output_type == "error"]
    assert not [each for each in shown if each.get("name") == "stderr"], "a warning or progress bar"
    assert shows_picture(shown[-1])
    assert code(notebook)[-1].outputs, "the last cell is the one with the picture"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_committed_has_no_private_paths_and_no_metadata_that_changes(name: str) -> None:
    notebook = load(name)
    assert not [PRIVATE.search(text) for text in texts(notebook) if PRIVATE.search(text)]
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]


@pytest.mark.parametrize("name", NAMES)
def test_links_of_notebooks_lead_to_files(name: str) -> None:
    prose = "\n".join(cell.source for cell in load(name).cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", prose) if "://" not in link]
    assert not [link for link in links if not (FOLDER / link).exists()]


@pytest.mark.parametrize(
    "text", ["saved to /home/me/x", "<Figure at 0x7f3a2b1c>", "File ~/x.py", r"C:\Users\me"]
)
def test_private_paths_are_noticed(text: str) -> None:
    assert PRIVATE.search(text)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_cells_run_in_a_fresh_kernel_and_leave_nothing_behind(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # this checkout, whatever is installed
    done = execute(load(name), tmp_path)  # raises where a cell does
    assert [says_something(cell) for cell in code(done)] == [
        says_something(cell) for cell in code(load(name))
    ]
    assert shows_picture(outputs(done)[-1])
    assert not list(tmp_path.iterdir())
