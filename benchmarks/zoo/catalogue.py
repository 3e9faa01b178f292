"""The networks of the zoo: how to build each, and an input for it. Knows nothing of measuring.

Weights are random: nothing is ever downloaded. Those of timm need timm, which is an extra.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from types import ModuleType

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.zoo.timm_names import timm_names
from pruning_env.tasks.models import CifarResNet, CifarVGG, LeNet5

Shape = tuple[int, ...]


@dataclass(frozen=True)
class ZooModel:
    """One network of the zoo.

    Attributes:
        name: as torchvision registers it, or as in `_OWN`; of timm's networks with "timm/" before.
        family: "classification", "segmentation", "detection", ...
        build: makes it, with random weights.
        shapes: of its inputs, batch 1.
        size: its number of parameters as published, or 0; only for the order of a run.
        double: whether it runs in double precision.
    """

    name: str
    family: str
    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    size: int
    double: bool = True


#: Networks that torchvision does not have: the CIFAR ones, with both kinds of shortcut.
_OWN: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "lenet5": (LeNet5, (1, 1, 28, 28)),
    "cifar_resnet20_a": (lambda: CifarResNet(20, shortcut="A"), (1, 3, 32, 32)),
    "cifar_resnet20_b": (lambda: CifarResNet(20, shortcut="B"), (1, 3, 32, 32)),
    "cifar_resnet56_a": (lambda: CifarResNet(56, shortcut="A"), (1, 3, 32, 32)),
    "cifar_resnet56_b": (lambda: CifarResNet(56, shortcut="B"), (1, 3, 32, 32)),
    "cifar_vgg19": (lambda: CifarVGG(19), (1, 3, 32, 32)),
}

_TORCHVISION: dict[str, ModuleType] = {
    "classification": torchvision.models,
    "segmentation": torchvision.models.segmentation,
    "video": torchvision.models.video,
    "detection": torchvision.models.detection,
    "optical_flow": torchvision.models.optical_flow,
    "quantization": torchvision.models.quantization,
}

FAMILIES = ("cifar", *_TORCHVISION, "timm")


def buildable_families() -> tuple[str, ...]:
    """Those of `FAMILIES` whose networks can be built here."""
    return tuple(f for f in FAMILIES if f != "timm" or find_spec("timm") is not None)


#: Small pictures, so that double precision on a processor is quick.
_DEFAULT_SHAPES: dict[str, tuple[Shape, ...]] = {
    "classification": ((1, 3, 64, 64),),
    "segmentation": ((1, 3, 64, 64),),
    "video": ((1, 3, 8, 56, 56),),
    # The last maps of a pyramid shrink to one pixel on less, which GroupNorm refuses for one image.
    "detection": ((1, 3, 256, 256),),
    "optical_flow": ((1, 3, 128, 128), (1, 3, 128, 128)),
    "quantization": ((1, 3, 64, 64),),
}

#: What does not run on those, by the beginning of its name: the longest beginning counts.
_SHAPES: dict[str, Shape] = {
    "googlenet": (1, 3, 96, 96),
    "quantized_googlenet": (1, 3, 96, 96),
    "inception_v3": (1, 3, 299, 299),
    "quantized_inception_v3": (1, 3, 299, 299),
    "maxvit": (1, 3, 224, 224),
    "vit": (1, 3, 224, 224),
    "swin": (1, 3, 224, 224),
    "swin3d": (1, 3, 8, 56, 56),
    "mvit": (1, 3, 16, 224, 224),
    "s3d": (1, 3, 16, 224, 224),
    "ssd300": (1, 3, 300, 300),
    "ssdlite320": (1, 3, 320, 320),
}


class DetectorCore(nn.Module):
    """The part of a detector that is a network: backbone, feature pyramid, and dense heads.

    What follows (choosing boxes, cutting regions out) branches on values, and no exporter captures
    it. Where it reads the feature maps (R-CNN), they are outputs, so their channels stay.

    Args:
        detector: One of `torchvision.models.detection`.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        proposals = getattr(detector, "rpn", None)
        self.two_stages = proposals is not None
        self.backbone: nn.Module = detector.get_submodule("backbone")
        self.head: nn.Module = detector.get_submodule("head" if proposals is None else "rpn.head")

    def forward(self, x: Tensor) -> tuple[object, ...]:
        """(N, 3, H, W) -> what the heads say, and the feature maps if they are used further."""
        features = list(self.backbone(x).values())
        answers = self.head(features)
        return (answers, features) if self.two_stages else (answers,)


@cache
def zoo_models() -> dict[str, ZooModel]:
    """Every network by name: small ones first, large ones last."""
    models = [ZooModel(name, "cifar", build, (shape,), 0) for name, (build, shape) in _OWN.items()]
    for family, module in _TORCHVISION.items():
        for name in torchvision.models.list_models(module=module):
            models.append(
                ZooModel(
                    name,
                    family,
                    _builder(name, family),
                    _shapes(name, family),
                    _size(name),
                    double=family != "optical_flow",  # RAFT makes its coordinates in float32
                )
            )
    models += [
        ZooModel(
            f"timm/{one.name}",
            "timm",
            partial(_build_timm, one.name),
            ((1, 3, one.pixels, one.pixels),),
            one.size,
        )
        for one in timm_names()
    ]
    models.sort(key=lambda model: model.size)
    return {model.name: model for model in models}


def _builder(name: str, family: str) -> Callable[[], nn.Module]:
    options: dict[str, object] = {"weights": None}
    if family in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if family == "quantization":
        options["quantize"] = False  # the float network, with its stubs and `FloatFunctional`s

    def build() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GoogLeNet speaks of its own initialisation
            model = torchvision.models.get_model(name, **options)
        return DetectorCore(model) if family == "detection" else model

    return build


def _build_timm(name: str) -> nn.Module:
    # Late, because it is an extra.
    import timm  # type: ignore[import-not-found, import-untyped, unused-ignore]

    model: nn.Module = timm.create_model(name, pretrained=False)
    return model


def _shapes(name: str, family: str) -> tuple[Shape, ...]:
    special = [start for start in _SHAPES if name.startswith(start)]
    return (_SHAPES[max(special, key=len)],) if special else _DEFAULT_SHAPES[family]


def _size(name: str) -> int:
    weights = list(torchvision.models.get_model_weights(name))
    return int(weights[0].meta["num_params"]) if weights else 0


def example_input(
    model: ZooModel, batch: int, seed: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """Random inputs for `model`, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn((batch, *shape[1:]), generator=generator).to(dtype) for shape in model.shapes
    )
