"""Int8 networks of ONNX files, by ONNX Runtime's own static quantisation.

Knows nothing of accuracy: what int8 costs is measured by whoever has the images.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pruning_env.files import atomic_path
from pruning_env.tasks.export import needs

__all__ = ["quantise_onnx"]


def quantise_onnx(
    source: str | os.PathLike[str],
    path: str | os.PathLike[str],
    images: torch.Tensor,
    *,
    batch_size: int = 32,
) -> Path:
    """Quantise weights (int8, per channel) and activations (uint8) of an ONNX file.

    The ranges of activations are the least and largest values that `images` give (QDQ format).

    Args:
        source: File of the float network.
        path: File of the int8 network; replaced when the new one is complete.
        images: (N, C, H, W) float32, normalised, for calibration; not those that it is judged on.
        batch_size: Of the calibration.

    Raises:
        ValueError: onnxruntime is not installed, or cannot quantise this network.
    """
    quantization: Any = needs("onnxruntime.quantization")
    preparation = needs("onnxruntime.quantization.shape_inference")
    reader: Any = quantization.CalibrationDataReader

    class Images(reader):
        """Hands out the images batch by batch."""

        def __init__(self) -> None:
            self._batches: Iterator[torch.Tensor] = iter(images.split(batch_size))

        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(self._batches, None)
            return None if batch is None else {"images": batch.contiguous().numpy()}

    with tempfile.TemporaryDirectory() as folder, atomic_path(Path(path)) as temporary:
        prepared = Path(folder) / "prepared.onnx"
        try:
            preparation.quant_pre_process(os.fspath(source), os.fspath(prepared))
            quantization.quantize_static(
                os.fspath(prepared),
                os.fspath(temporary),
                Images(),
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        except Exception as error:  # it raises of all kinds
            raise ValueError(f"{source} cannot be quantised: {error}") from error
    return Path(path)
