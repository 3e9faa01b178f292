"""Who runs cells: a pool of processes on this machine, or the tasks of a Ray cluster.

An executor turns cells into rows in the order in which they are done, one row each, and runs one
cell at a time in a process, because evaluations are counted for the process. Nothing here keeps
rows or knows which cells are missing.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Protocol

import torch

from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.search.rows import provenance


class Executor(Protocol):
    """Anything that runs cells."""

    def check(self, device: str) -> None:
        """Refuse what cannot work before anything runs.

        Args:
            device: that the cells' environments are on, as for torch.

        Raises:
            ValueError: naming the argument.
        """

    def rows(self, cells: Sequence[Cell], command: str, device: str) -> Iterator[AgentRow]:
        """One row for each cell, in the order in which they are done.

        Args:
            cells: one or more, no two with the same key.
            command: what was typed, for the rows' provenance.
            device: that the cells' environments are on, as for torch.

        Raises:
            RuntimeError: some cells have no row because their workers died; those that were done
                have been given.
        """


@dataclass(frozen=True)
class LocalPool:
    """Processes of this machine.

    Attributes:
        workers: how many, each with one thread of torch.
    """

    workers: int = 1

    def check(self, device: str) -> None:
        """Nothing to refuse: torch itself says what devices there are."""

    def rows(self, cells: Sequence[Cell], command: str, device: str) -> Iterator[AgentRow]:
        """As `Executor.rows`; a worker that dies ends the run."""
        # A server that has imported everything once forks the workers, none of which inherits
        # threads.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_cell.__module__])
        workers = min(self.workers, len(cells))
        with ProcessPoolExecutor(workers, context, _prepare_worker) as pool:
            # Asked in a worker: it says with how many threads the rows are made.
            origin = pool.submit(provenance, command, device).result()
            futures: list[Future[AgentRow]] = [
                pool.submit(run_cell, each, origin) for each in cells
            ]
            try:
                for future in as_completed(futures):
                    try:
                        yield future.result()
                    except BrokenProcessPool as error:
                        raise RuntimeError(
                            "a worker was killed, perhaps for its memory; rows so far are kept, "
                            "and the same command goes on from there"
                        ) from error
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _prepare_worker() -> None:
    """One thread of torch; and no life after the run, which when killed cannot say that it ends."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
