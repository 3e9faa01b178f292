"""The states of the global random generators, taken and put back.

Stable-Baselines3 draws from those of Python, NumPy and torch. Knows nothing of agents.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Generators:
    """States of the global generators, to be pickled.

    Attributes:
        python: of `random`.
        numpy: of `np.random`.
        cpu: of torch on the CPU.
        cuda: of torch on each CUDA device; empty where CUDA is not in use.
    """

    python: Any
    numpy: Any
    cpu: torch.Tensor
    cuda: tuple[torch.Tensor, ...]


def take_generators() -> Generators:
    """The states as they are now."""
    cuda = tuple(torch.cuda.get_rng_state_all()) if torch.cuda.is_initialized() else ()
    return Generators(random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda)


def restore_generators(states: Generators) -> None:
    """Put states back that `take_generators` gave."""
    random.setstate(states.python)
    np.random.set_state(states.numpy)
    torch.set_rng_state(states.cpu)
    if states.cuda:
        torch.cuda.set_rng_state_all(list(states.cuda))
