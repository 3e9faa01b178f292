"""Read a file of weights into a module, whole or not at all, and never run what the file says.

Takes safetensors, and PyTorch checkpoints through `torch.load(weights_only=True)`. Knows the names
and shapes of the module it fills, and nothing of tasks or data.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

__all__ = ["load_state_file", "read_state_file"]

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts put the state dict inside a checkpoint."""

_NAMES_SHOWN = 3


def read_state_file(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, on the CPU.

    Args:
        path: A `.safetensors` file, or a PyTorch checkpoint of any other suffix that is a state
            dict or holds one under "state_dict", "model_state_dict" or "model". A `module.` prefix
            (DataParallel's) is dropped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, is not such a file, or holds anything but plain tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"weights: no file {path}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path, device="cpu")
        except SafetensorError as error:
            raise ValueError(f"weights: {path} is not a whole safetensors file: {error}") from error
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler fails in a dozen ways on foreign bytes
        raise ValueError(
            f"weights: {path} is not a whole PyTorch checkpoint of plain tensors "
            f"({type(error).__name__}); objects that would run code are refused."
        ) from error
    state = stored
    for wrapper in _WRAPPERS:
        if isinstance(stored, dict) and isinstance(stored.get(wrapper), dict):
            state = stored[wrapper]
            break
    if (
        not isinstance(state, dict)
        or not state
        or not all(
            isinstance(name, str) and isinstance(t, torch.Tensor) for name, t in state.items()
        )
    ):
        raise ValueError(
            f"weights: {path} holds no state dict (tensors by name, at the top or under "
            f"{', '.join(map(repr, _WRAPPERS))})."
        )
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_state_file(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `module` with the weights of a file; every name and shape must fit.

    Args:
        module: Filled in place; left as it was when anything is wrong.
        path: As for `read_state_file`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file cannot be read, or its tensors are not those of `module` or not finite.
    """
    state = read_state_file(path)
    wanted = module.state_dict()
    # Checkpoints from before PyTorch 0.4.1 lack the counters, which play no part in the outputs.
    missing = [n for n in wanted if n not in state and not n.endswith("num_batches_tracked")]
    unexpected = [n for n in state if n not in wanted]
    reshaped = [
        f"{n} {tuple(t.shape)} instead of {tuple(wanted[n].shape)}"
        for n, t in state.items()
        if n in wanted and t.shape != wanted[n].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:_NAMES_SHOWN])}{', ...' if rest else ''})"
        for what, names, rest in (
            ("missing", missing, missing[_NAMES_SHOWN:]),
            ("unexpected", unexpected, unexpected[_NAMES_SHOWN:]),
            ("of another shape", reshaped, reshaped[_NAMES_SHOWN:]),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"weights: the tensors of {path} are not those of {type(module).__name__}: "
            f"{'; '.join(problems)}."
        )
    broken = [n for n, t in state.items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        more = ", ..." if broken[_NAMES_SHOWN:] else ""
        raise ValueError(
            f"weights: {path} has values in {', '.join(broken[:_NAMES_SHOWN])}{more} that are not "
            "finite; a network with NaN or infinity in its weights cannot be judged."
        )
    module.load_state_dict(state, strict=False)
