"""Write files so that a reader never sees half of one.

Everything the project leaves on disk (weights, recipes, rows, figures) goes through here: it is
written beside its destination under a temporary name and renamed when complete, so that a killed
run leaves the old file or none. A temporary file is locked while its writer lives; what a killed
one left is told by that, and removed by the next writer. Knows nothing of what the files contain.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows; without locks nothing is known to be abandoned
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "abandoned",
    "append_line",
    "atomic_path",
    "atomic_write",
    "locked_folder",
    "temporary_name",
]


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path that becomes `path` when the block ends without an exception.

    The temporary file lies in the same folder (a rename is only atomic within one file system) and
    has the same suffix, because writers such as matplotlib choose their format by it. Missing
    parent folders are made, and temporary files that killed writers of `path` left are removed.

    Args:
        path: The destination. An existing file is replaced.

    Yields:
        The path to write to. When the block raises, what was written there is removed and `path` is
        left as it was.

    Raises:
        OSError: It cannot be written; the error names `path`, not the temporary file.
    """
    destination = Path(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    for left in abandoned(destination, destination.suffix):
        left.unlink(missing_ok=True)
    temporary = temporary_name(destination, destination.suffix)
    try:
        with _claimed_file(temporary):
            yield temporary
            os.replace(temporary, destination)
    except OSError as error:
        # The writer knows the temporary name, or none: a full disk is told of a descriptor.
        if error.errno is None or error.filename not in (None, str(temporary), temporary):
            raise
        raise OSError(error.errno, f"not written: {error.strerror}", str(destination)) from error
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write `data` (text as UTF-8) to `path`, all of it or nothing."""
    content = data.encode("utf-8") if isinstance(data, str) else data
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Append a line to a file, made if needed: all of it or nothing.

    The file is locked and opened for appending, so that processes which share it do not mix their
    lines. Behind a line that a killed process left unfinished, a new one is begun.

    Args:
        path: The file. Missing parent folders are made.
        line: Without its line break.

    Raises:
        OSError: It cannot be written whole, as on a full disk; the file is as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        _lock(descriptor)
        size = os.fstat(descriptor).st_size
        unfinished = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        left = (("\n" if unfinished else "") + line + "\n").encode()
        try:
            while left:  # a disk that is filling up takes the first part, and refuses the next
                left = left[os.write(descriptor, left) :]
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, size)
            raise OSError(error.errno, f"not written: {error.strerror}", str(target)) from error
    finally:
        os.close(descriptor)


def temporary_name(destination: Path, suffix: str) -> Path:
    """A name beside `destination` that nobody else uses, and that `abandoned` knows."""
    stem = destination.name.removesuffix(suffix)
    return destination.with_name(f".{stem}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def abandoned(destination: Path, suffix: str) -> Iterator[Path]:
    """Files and folders of `temporary_name` whose writers are dead: nobody has claimed them.

    While one is yielded nobody can claim it: remove it then.
    """
    stem = destination.name.removesuffix(suffix)
    pattern = re.compile(rf"\.{re.escape(stem)}-\d+-[0-9a-f]{{8}}{re.escape(suffix)}")
    with os.scandir(destination.parent) as entries:
        found = [Path(entry.path) for entry in entries if pattern.fullmatch(entry.name)]
    for path in found:
        with _seized(path) as free:
            if free:
                yield path


@contextlib.contextmanager
def _claimed_file(path: Path) -> Iterator[None]:
    """Make an empty file, and say that its writer lives, as long as the block runs."""
    while True:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        _lock(descriptor)
        if os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)  # taken for abandoned before it was locked, and removed
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_folder(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Keep other processes out that ask for the same folder, or with `shared` only writers.

    Whoever holds a folder of `temporary_name` says that its writer lives.

    Where a file system has no locks, or the folder cannot be opened, nobody is kept out.
    """
    try:
        descriptor = None if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError:
        descriptor = None
    try:
        if descriptor is not None:
            _lock(descriptor, shared)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock(descriptor: int, shared: bool = False) -> None:
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)


@contextlib.contextmanager
def _seized(path: Path) -> Iterator[bool]:
    """Hold `path` if nobody does; whether that is so. Without locks it is not known: no."""
    try:
        descriptor = None if fcntl is None else os.open(path, os.O_RDONLY)
    except OSError:
        descriptor = None
    if descriptor is None:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)
