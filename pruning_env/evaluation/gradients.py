"""Where gradients are computed: recorded whatever the caller does, and refused with a reason.

Also how images lie in memory for it. Knows nothing of what the gradients are of.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch
from torch import nn

__all__ = ["computing_gradients", "gradient_layout", "laid_out"]

_threads_of = os.getpid()
"""The process whose threads torch has: the one that imported this, until a fork computes."""

_BLOCK = 16
"""Channels that oneDNN's kernels take together, at most: 8 with AVX2, 16 with AVX-512."""


@contextlib.contextmanager
def computing_gradients() -> Iterator[None]:
    """Record gradients inside, also where the caller records none.

    Raises:
        RuntimeError: inside, gradients were wanted in a process that was forked from one that had
            computed some: PyTorch's threads for that do not survive a fork.
    """
    _renew_threads()
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


def _renew_threads() -> None:
    """Let a forked process replace the pool of threads that it inherited, while it has one thread.

    Torch replaces it at the next use, without a lock: autograd's own thread and the one that
    started it may do so at once, and one of them finds none ("Invalid thread pool!", an abort).
    """
    global _threads_of
    if os.getpid() != _threads_of:
        torch.set_num_threads(torch.get_num_threads())
        _threads_of = os.getpid()


def gradient_layout(model: nn.Module) -> torch.memory_format:
    """Channels-last, the quicker one, where gradients by the weights are right in it.

    On a processor, oneDNN's gradient of a strided 1 x 1 convolution writes past its buffer where
    the input is channels-last and has fewer channels than a block (its issue 6035, open): a crash,
    a hang or wrong gradients. Networks with such a layer are trained contiguous.
    """
    overrun = any(
        isinstance(module, nn.Conv2d)
        and module.weight.device.type == "cpu"
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < _BLOCK
        for module in model.modules()
    )
    return torch.contiguous_format if overrun else torch.channels_last


def laid_out(images: torch.Tensor, model: nn.Module) -> torch.Tensor:
    """(N, C, H, W) images in the layout that the model's gradients want; others as they are."""
    if images.ndim != 4:
        return images
    layout = gradient_layout(model)
    if layout == torch.channels_last:
        return images.contiguous(memory_format=layout)
    # Images of one channel are contiguous in either order; a copy has the strides of this one.
    return images.clone(memory_format=layout)
