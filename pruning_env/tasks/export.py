"""Pruned networks for other programs: as ONNX, as a program of `torch.export`, or weights alone.

Each file is read back and run before it is handed over. Knows nothing of accuracy, and nothing of
how a network was found. `quantisation.py` makes an int8 network of an ONNX file.
"""

from __future__ import annotations

import copy
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pruning_env.arguments import check_choice
from pruning_env.files import atomic_path

__all__ = ["FORMATS", "OPSET", "Exported", "OnnxNetwork", "export", "needs"]

OPSET = 18
"""Version of ONNX's operators that is written."""

TOLERANCE = 1e-4
"""Largest difference of an output to the model's, over the largest output, that is accepted."""

BATCHES = (1, 3)
"""Batch sizes with which a file is run; it was exported with another one."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it compares with the model.

    Attributes:
        path: Of the file.
        format: One of `FORMATS`.
        opset: Of ONNX; None for other formats.
        size: Bytes.
        difference: Largest difference of an output to the model's / the largest output.
    """

    path: Path
    format: str
    opset: int | None
    size: int
    difference: float


def export(
    model: nn.Module,
    path: str | os.PathLike[str],
    input_shape: tuple[int, ...],
    *,
    format: str = "onnx",
) -> Exported:
    """Write a network as a file for other programs, and check the file by running it.

    Batches may be of any size. What is written is the network in eval mode, in float32; `model`
    is left as it was.

    Args:
        model: The network, pruned or not; takes one tensor and returns one.
        path: The file, ending in .onnx, .pt2 or .safetensors by the format; replaced when the new
            one is complete and has been checked.
        input_shape: Of one input without the batch dimension, such as (3, 224, 224).
        format: "onnx" (needs the extra `export`), "torch.export" (`torch.export.load` reads it), or
            "safetensors": the weights under their names in `state_dict`, for a program that builds
            the pruned network itself.

    Raises:
        ValueError: No such format, a package is missing, the model cannot be exported, or the file
            does not compute what the model does.
        OSError: The file cannot be written.
    """
    check_choice("format", format, FORMATS)
    suffix, write = FORMATS[format]
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"path={os.fspath(path)!r} must end in {suffix} for format={format!r}")
    frozen = copy.deepcopy(model).cpu().float().eval()
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn((n, *input_shape), generator=generator) for n in BATCHES]
    with torch.inference_mode():
        expected = [frozen(x) for x in inputs]
    with atomic_path(path) as temporary:
        try:
            read = write(frozen, temporary, input_shape)
            with torch.inference_mode():
                outputs = [read(x) for x in inputs]
        except (OSError, ValueError):
            raise
        except Exception as error:  # exporters raise of all kinds
            raise ValueError(
                f"model cannot be exported as {format} for batches of any size: {error}"
            ) from error
        difference = max(
            float((given - wanted).abs().max() / wanted.abs().max().clamp_min(1e-12))
            for given, wanted in zip(outputs, expected, strict=True)
        )
        if not difference <= TOLERANCE:
            raise ValueError(
                f"the {format} file computes something else than the model: outputs differ by "
                f"{difference:.1e} of the largest, allowed is {TOLERANCE:.0e}; nothing is written"
            )
    opset = OPSET if format == "onnx" else None
    return Exported(path, format, opset, path.stat().st_size, difference)


def needs(package: str) -> ModuleType:
    """A package of the extra `export`.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(
            f"ONNX needs {package.partition('.')[0]}, which is not installed: "
            "pip install 'pruning-env[export]'"
        ) from error


class OnnxNetwork(nn.Module):
    """An ONNX file as a module: computes in ONNX Runtime, on the CPU, with torch's threads.

    Args:
        path: Of the file, with one input and one output.

    Raises:
        ValueError: onnxruntime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = runtime.InferenceSession(
            os.fspath(path), options, providers=["CPUExecutionProvider"]
        )
        self._input = self._session.get_inputs()[0].name

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(N, ...) float32 -> what the file's output is."""
        (output,) = self._session.run(None, {self._input: images.contiguous().numpy()})
        return torch.from_numpy(output)


Reader = Callable[[torch.Tensor], torch.Tensor]


def _dynamic(input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Arguments of both exporters: an example of two, since one would be taken for a constant."""
    return {
        "args": (torch.zeros((2, *input_shape)),),
        "dynamic_shapes": ({0: torch.export.Dim("batch")},),
    }


def _onnx(model: nn.Module, path: Path, input_shape: tuple[int, ...]) -> Reader:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        needs(package)
    torch.onnx.export(
        model,
        f=path,
        **_dynamic(input_shape),
        input_names=["images"],
        output_names=["logits"],
        opset_version=OPSET,
        external_data=False,
        dynamo=True,
        verbose=False,
    )
    return OnnxNetwork(path)


def _program(model: nn.Module, path: Path, input_shape: tuple[int, ...]) -> Reader:
    torch.export.save(torch.export.export(model, strict=False, **_dynamic(input_shape)), path)
    return torch.export.load(path).module()


def _weights(model: nn.Module, path: Path, input_shape: tuple[int, ...]) -> Reader:
    # Tied tensors are stored under each of their names.
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, path)
    read = copy.deepcopy(model)
    read.load_state_dict(load_file(path))
    return read


#: By the name of a format: the suffix of its files, and what writes one and gives back what that
#: computes.
FORMATS: Mapping[str, tuple[str, Callable[[nn.Module, Path, tuple[int, ...]], Reader]]] = (
    MappingProxyType(
        {
            "onnx": (".onnx", _onnx),
            "torch.export": (".pt2", _program),
            "safetensors": (".safetensors", _weights),
        }
    )
)
