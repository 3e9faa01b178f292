"""Write files so that a reader never sees half of one.

Everything the project leaves on disk (weights, recipes, rows, figures) goes through here: it is
written beside its destination under a temporary name and renamed when complete, so that a killed
run leaves the old file or none. Knows nothing of what the files contain.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

__all__ = ["atomic_path", "atomic_write"]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an exception.

    The temporary file lies in the same folder (a rename is only atomic within one file system) and
    has the same suffix, because writers such as matplotlib choose their format by it. Missing
    parent folders are made.

    Args:
        path: The destination. An existing file is replaced.

    Yields:
        The path to write to. When the block raises, what was written there is removed and `path` is
        left as it was.
    """
    destination = Path(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    name = f".{destination.stem}-{os.getpid()}-{secrets.token_hex(4)}{destination.suffix}"
    temporary = destination.with_name(name)
    try:
        yield temporary
        os.replace(temporary, destination)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, all of it or nothing."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
