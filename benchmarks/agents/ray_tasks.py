"""Cells as tasks of a Ray cluster. The only module that knows Ray, and imports it when it is used.

Ray runs a task again when its worker or its node dies; a row comes back only from the attempt that
ends. Rows come to the driver, which is the only one that writes. The nodes need this project and
the agents' modules on their path: where they have no checkout of their own, `ray job submit
--working-dir .` brings them one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch

from pruning_agents.comparison.cells import Cell, run_cell
from pruning_agents.comparison.rows import AgentRow
from pruning_agents.search.rows import Provenance, provenance


@dataclass(frozen=True)
class RayTasks:
    """Tasks of a Ray cluster, each with one CPU and one thread of torch.

    Attributes:
        address: of the cluster, as for `ray.init`: "auto" for the one that runs on this machine,
            "local" for a new one on it, which ends with the run. None: where `RAY_ADDRESS` is set,
            that; else the one that runs here, or a new one.
        gpus_per_cell: reserved for each task; a fraction lets several share one.
        retries: how often a task whose worker died is run again.
    """

    address: str | None = None
    gpus_per_cell: float = 0.0
    retries: int = 3

    def check(self, device: str) -> None:
        """Refuse resources that Ray could not give, or that the cells could not use.

        Raises:
            ValueError: a number of GPUs that is neither below 1 nor whole, or none for a device
                that is one; or Ray is not installed.
        """
        gpus = self.gpus_per_cell
        if gpus < 0 or (gpus > 1 and gpus != int(gpus)):
            raise ValueError(f"gpus_per_cell={gpus}; allowed: 0 to 1, or a whole number")
        if self.retries < 0:
            raise ValueError(f"retries={self.retries}; allowed: 0 or more")
        if torch.device(device).type == "cuda" and not gpus:
            raise ValueError(
                f"gpus_per_cell=0 with device={device!r}: Ray would send cells to nodes without a "
                "GPU; say how much of one a cell needs, such as 0.25"
            )
        import_ray()

    def rows(self, cells: Sequence[Cell], command: str, device: str) -> Iterator[AgentRow]:
        """As `Executor.rows`; cells whose workers died too often are named at the end.

        Raises:
            RuntimeError: naming them.
            ValueError: there is no cluster at the address.
        """
        ray = import_ray()
        own = not ray.is_initialized()
        if own:
            try:
                ray.init(self.address, log_to_driver=False, logging_level="WARNING")
            except ConnectionError as error:
                raise ValueError(f"address={self.address!r}: no Ray cluster: {error}") from error
        task = self.task()
        pending: dict[Any, Cell] = {}
        try:
            pending |= {task.remote(cell, command, device): cell for cell in cells}
            yield from self._done(ray, pending)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            if own:
                ray.shutdown()

    def task(self) -> Any:
        """The remote function of a cell, a command and a device, with what it needs."""
        wanted = {"num_cpus": 1, "num_gpus": self.gpus_per_cell, "max_retries": self.retries}
        return import_ray().remote(**wanted)(_row_of)

    def _done(self, ray: ModuleType, pending: dict[Any, Cell]) -> Iterator[AgentRow]:
        """Take references out of `pending` as they are done."""
        lost: list[tuple[Cell, Exception]] = []
        while pending:
            (reference,), _ = ray.wait(list(pending), num_returns=1)
            cell = pending.pop(reference)
            try:
                row = ray.get(reference)
            except ray.exceptions.RayTaskError:
                raise  # an exception of ours, not a death
            except ray.exceptions.RayError as error:
                lost.append((cell, error))
            else:
                yield row
        if lost:
            names = "; ".join(f"{cell.agent}, {cell.task}, seed {cell.seed}" for cell, _ in lost)
            raise RuntimeError(
                f"workers died {self.retries + 1} times at {names}; all other rows are kept, and "
                "the same command tries these again"
            ) from lost[0][1]


def import_ray() -> ModuleType:
    """The module `ray`.

    Raises:
        ValueError: it is not installed; the message says how to.
    """
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "Ray is not installed; it comes with the extra: pip install 'pruning-env[ray]'"
        ) from error
    return ray


def _row_of(cell: Cell, command: str, device: str) -> AgentRow:
    """What a task does, in a worker."""
    torch.set_num_threads(1)
    return run_cell(cell, _provenance(command, device))


@functools.cache
def _provenance(command: str, device: str) -> Provenance:
    """Asked in a worker, once: nodes may be of several kinds."""
    return provenance(command, device)
