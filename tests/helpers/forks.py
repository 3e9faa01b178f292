"""Commands in processes of their own, forked from a server that has imported everything.

A fresh interpreter needs ten seconds until its command begins, such a fork none. What depends on
what a process has imported needs a fresh one (`processes.py`).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

_WARM = "tests.helpers.warm"
_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([_WARM, __name__])


def _lead(command: Callable[[list[str]], int], arguments: list[str], said: str) -> None:
    """Run a command as the leader of a group of processes; what it says goes to a file."""
    os.setsid()
    torch.set_num_threads(1)
    saying = os.open(said, os.O_WRONLY)
    os.dup2(saying, 1)
    os.dup2(saying, 2)
    raise SystemExit(command(arguments))


def is_warm(_: list[str]) -> int:
    """A command that fails in a process that has not imported what a fork should have."""
    return 0 if _WARM in sys.modules else 1


class Fork:
    """A command in a process of its own."""

    def __init__(self, command: Callable[[list[str]], int], arguments: list[str]) -> None:
        self.begun = time.monotonic()
        handle, said = tempfile.mkstemp(prefix="cnnprune-fork-")
        os.close(handle)
        self._said = Path(said)
        self.process = _SERVER.Process(target=_lead, args=(command, arguments, said))
        self.process.start()

    def end(self) -> tuple[int | None, float]:
        """Wait for it; its exit code, negative for a signal, and the seconds it took.

        What a command said that failed is printed, for the report of the test that fails.
        """
        self.process.join()
        if self.process.exitcode not in (0, -signal.SIGKILL):
            print(self._said.read_text(errors="replace"))
        self._said.unlink(missing_ok=True)
        return self.process.exitcode, time.monotonic() - self.begun

    def kill_after(self, seconds: float) -> bool:
        """Kill it and its workers so long after its begin; whether it still ran."""
        time.sleep(max(0.0, seconds - (time.monotonic() - self.begun)))
        assert self.process.pid is not None
        with contextlib.suppress(ProcessLookupError):  # it has ended, or leads no group yet
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        code, _ = self.end()
        assert code in (0, -signal.SIGKILL)
        return code != 0
