"""`python -m benchmarks report`: the results that are kept, or those of rows, as one page."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.agents.figures_command import write_figures
from benchmarks.report.page import Page, to_html
from pruning_env.files import atomic_write

RESULTS = Path("benchmarks/results")


def add_report_command(commands: Any) -> None:
    """Add it to the subcommands of a parser; it sets `run(options, command, console)`."""
    parser = commands.add_parser(
        "report",
        help="tables and figures in one HTML file that needs nothing else",
        description="Put pages of results and their figures into one HTML file, which loads "
        "nothing from elsewhere, runs no scripts, and is the same for the same results.",
    )
    parser.add_argument(
        "--rows",
        type=Path,
        nargs="+",
        metavar="ROWS.jsonl",
        help="of `agents` or `episode`: their tables and figures, made anew (default: all pages of "
        "--results as they are)",
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/report.html"), help="default: %(default)s"
    )
    parser.set_defaults(run=_run)


def _run(options: dict[str, Any], command: str, console: Console) -> int:
    rows = options["rows"]
    text = report_of_rows(rows) if rows else report_of_results(options["results"])
    atomic_write(options["out"], text)
    size = len(text.encode()) / 1e6
    console.print(f"Written to {options['out']}: {size:.1f} MB", highlight=False, soft_wrap=True)
    return 0


def report_of_results(folder: Path) -> str:
    """All Markdown pages of a folder, by name.

    Raises:
        ValueError: there is none.
    """
    paths = sorted(folder.glob("*.md"))
    if not paths:
        raise ValueError(f"results={str(folder)!r} holds no page of results")
    return to_html(
        "pruning-env: results", [Page(path.stem, path.read_text(), folder) for path in paths]
    )


def report_of_rows(paths: Sequence[Path]) -> str:
    """Tables and figures of files of rows or episodes, made anew.

    Raises:
        ValueError: as `write_figures`.
    """
    with tempfile.TemporaryDirectory() as name:
        pages = []
        for number, path in enumerate(paths, start=1):
            folder = Path(name) / str(number)  # files may have the same name
            page, *_ = write_figures(path, folder / path.stem)
            pages.append(Page(path.stem, page.read_text(), folder))
        return to_html("pruning-env: results", pages)
