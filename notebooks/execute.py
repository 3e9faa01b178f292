"""Run the notebooks in fresh kernels and keep what they show: `python notebooks/execute.py`.

The notebooks are their own source: this writes new outputs into them and leaves out what would
differ without a reason, such as times and the version of the kernel. It knows nothing of what they
show.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent

#: Seconds for one cell; a whole notebook takes less than two minutes.
CELL_TIMEOUT = 600


def execute(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in `folder`, in a kernel of this Python; outputs are replaced.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised; the message has its traceback.
    """
    client = NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    done: NotebookNode = client.execute()
    return _plain(done)


def notebooks() -> list[Path]:
    """All of them, in order."""
    return sorted(FOLDER.glob("*.ipynb"))


def _plain(notebook: NotebookNode) -> NotebookNode:
    """Without metadata of this kernel."""
    notebook.metadata = NotebookNode(
        kernelspec={"display_name": "Python 3", "language": "python", "name": "python3"},
        language_info={"name": "python"},
    )
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
    return notebook


def _processor_seconds() -> float:
    """Of all kernels that have ended; on a busy machine it says more than the clock."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Run those that are named, or all, and write them back."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", type=Path, nargs="*", default=notebooks())
    for path in parser.parse_args().notebooks:
        start, used = time.monotonic(), _processor_seconds()
        # Elsewhere, so that a notebook that leaves something behind leaves it there.
        with tempfile.TemporaryDirectory() as folder:
            done = execute(nbformat.read(path, as_version=4), Path(folder))
        nbformat.write(done, path)
        seconds, used = time.monotonic() - start, _processor_seconds() - used
        print(f"{path.name}: {seconds:.0f} s, {used:.0f} s of them on a processor", flush=True)


if __name__ == "__main__":
    main()
