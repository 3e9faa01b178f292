"""Where networks are timed: torch as it is, compiled by torch, or ONNX Runtime.

Makes of networks what can be called with a batch, in the number of threads that was asked for;
`latency.py` holds the clock. Knows nothing of pruning.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from pruning_env.arguments import check_choice, check_count
from pruning_env.evaluation.latency import Forward
from pruning_env.tasks.export import OPSET, OnnxNetwork, export, needs

__all__ = ["RUNTIMES", "Runtime"]


@dataclass(frozen=True)
class Runtime:
    """What runs a network, with how many images at once, in how many threads.

    Attributes:
        name: "eager" (torch as it is), "compiled" (by `torch.compile`, for this batch size), both
            on the device of the images; or "onnxruntime" (the file that `export` writes; on the
            CPU, needs the extra `export`).
        batch: images per forward pass.
        threads: of a processor; None for torch's current number.

    Raises:
        ValueError: no such runtime, or not installed; a number that is no integer of at least 1.
    """

    name: str = "eager"
    batch: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        check_choice("runtime", self.name, RUNTIMES)
        check_count("batch", self.batch)
        if self.threads is not None:
            check_count("threads", self.threads)
        if self.name == "onnxruntime":
            for package in ("onnx", "onnxscript", "onnxruntime"):
                needs(package)

    @contextlib.contextmanager
    def ready(
        self, models: Sequence[nn.Module], images: torch.Tensor, *, many: bool = False
    ) -> Iterator[tuple[list[Forward], torch.Tensor]]:
        """What computes the models in this runtime, to be called inside the block, and the batch.

        The block has torch's number of threads changed, and ends by setting it back.

        Args:
            models: in eval mode, on the device of `images`; they stay as they are.
            images: (N, ...) the first of them make the batch; repeated where they are too few.
            many: whether this is one of many networks, which may be written for ONNX Runtime by
                torch's older exporter, the quicker one, where that does as well.

        Yields:
            One callable per model, each of which takes the batch, and the batch (batch, ...).

        Raises:
            ValueError: the runtime cannot run one of the models.
        """
        repeats = -(-self.batch // len(images))
        batch = images.repeat(repeats, *(1 for _ in images.shape[1:]))[: self.batch]
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads or before)
        try:
            if self.name == "onnxruntime":
                batch = batch.cpu().float()
            make = RUNTIMES[self.name]
            if self.name == "onnxruntime" and many:
                make = _onnxruntime_quickly
            yield [make(model, batch) for model in models], batch
        finally:
            torch.set_num_threads(before)


def _eager(model: nn.Module, batch: torch.Tensor) -> Forward:
    del batch
    return model


def _compiled(model: nn.Module, batch: torch.Tensor) -> Forward:
    """Exported first: compiled code of one class is shared, and given up after a few shapes."""
    with torch.inference_mode():
        try:
            captured = torch.export.export(model, (batch,), strict=False).module()
            # On CUDA "reduce-overhead" records graphs, elsewhere it is the default mode.
            compiled = torch.compile(captured, mode="reduce-overhead", dynamic=False)
            compiled(batch)
        except Exception as error:  # compilers raise of all kinds
            raise ValueError(f"runtime='compiled' cannot run the model: {error}") from error
    return compiled


def _onnxruntime(model: nn.Module, batch: torch.Tensor) -> Forward:
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, Path(folder) / "model.onnx", tuple(batch.shape[1:]))
        return OnnxNetwork(file.path)


def _onnxruntime_quickly(model: nn.Module, batch: torch.Tensor) -> Forward:
    """What `_onnxruntime` gives, from an exporter that takes much less time."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it is the older one
        path = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                copy.deepcopy(model).cpu().float(),
                (batch,),
                str(path),
                opset_version=OPSET,
                input_names=["images"],
                dynamic_axes={"images": {0: "batch"}},
                dynamo=False,
            )
            network = OnnxNetwork(path)
            with torch.inference_mode():
                network(batch)
        except Exception:  # it knows fewer operators
            return _onnxruntime(model, batch)
    return network


#: What makes a callable of a model and a batch, by the name of a runtime.
RUNTIMES: dict[str, Callable[[nn.Module, torch.Tensor], Forward]] = {
    "eager": _eager,
    "compiled": _compiled,
    "onnxruntime": _onnxruntime,
}
