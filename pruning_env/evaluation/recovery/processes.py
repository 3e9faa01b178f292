"""One process of several: what `torchrun` says, and the process group that it needs.

Without torchrun everything here is the case of a single process. Knows nothing of training.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["ALONE", "Processes", "processes"]


@dataclass(frozen=True)
class Processes:
    """This process and how many there are.

    Attributes:
        rank: From 0.
        world: Number of processes.
        device: Of this process.
    """

    rank: int
    world: int
    device: str

    def wrap(self, model: nn.Module) -> nn.Module:
        """`model` with gradients averaged over all processes."""
        if self.world == 1:
            return model
        on_gpu = torch.device(self.device).type == "cuda"
        return DistributedDataParallel(model, [torch.device(self.device)] if on_gpu else None)

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """What this process has of a batch of indices; equally many as the others."""
        return batch[: len(batch) // self.world * self.world][self.rank :: self.world]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            distributed.barrier()


#: A single process on the CPU.
ALONE = Processes(0, 1, "cpu")


@contextlib.contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the group that torchrun started, if it did; leave it at the end.

    Args:
        device: "cuda" becomes the GPU of this process's local rank.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Processes(0, 1, device)
        return
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), world, device)
    finally:
        distributed.destroy_process_group()
