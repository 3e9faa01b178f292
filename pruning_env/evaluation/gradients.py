"""Where gradients are computed: recorded whatever the caller does, and refused with a reason.

Knows nothing of what the gradients are of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["computing_gradients"]


@contextlib.contextmanager
def computing_gradients() -> Iterator[None]:
    """Record gradients inside, also where the caller records none.

    Raises:
        RuntimeError: inside, gradients were wanted in a process that was forked from one that had
            computed some: PyTorch's threads for that do not survive a fork.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "fork-based multiprocessing" not in str(error):
            raise
        raise RuntimeError(
            "this process was forked from one that had computed gradients, so PyTorch can compute "
            "none here. Make the worker processes before the first environment is reset, or give "
            'context="spawn" to AsyncVectorEnv (to gym.make_vec in vector_kwargs), '
            'start_method="spawn" to SubprocVecEnv'
        ) from error
