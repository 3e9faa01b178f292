"""torchvision's networks with stems for 32 x 32 images, as the literature on CIFAR has them.

Each is torchvision's own class, built and then changed in one or two places, so that its code and
its `state_dict` names are those that everybody knows. Knows nothing of data, training or pruning.
"""

from __future__ import annotations

from torch import nn

__all__ = ["cifar_densenet121", "cifar_mobilenet_v2", "cifar_resnet18", "cifar_resnet50"]

# torchvision is imported where it is used: that takes a second, and most tasks do without.


def cifar_resnet18(*, num_classes: int = 10) -> nn.Module:
    """ResNet-18 (He et al. 2016) whose stem is a 3 x 3 convolution of stride 1 without pooling."""
    from torchvision.models import resnet18

    return _full_resolution(resnet18(num_classes=num_classes))


def cifar_resnet50(*, num_classes: int = 10) -> nn.Module:
    """ResNet-50 with the stem of `cifar_resnet18`."""
    from torchvision.models import resnet50

    return _full_resolution(resnet50(num_classes=num_classes))


def cifar_densenet121(*, num_classes: int = 10) -> nn.Module:
    """DenseNet-121 (Huang et al. 2017): its stem is one 3 x 3 convolution and nothing else."""
    from torchvision.models import densenet121

    network = densenet121(num_classes=num_classes)
    network.features.conv0 = _stem()
    for name in ("norm0", "relu0", "pool0"):
        setattr(network.features, name, nn.Identity())
    return network


def cifar_mobilenet_v2(*, num_classes: int = 10) -> nn.Module:
    """MobileNetV2 (Sandler et al. 2018) whose first two halvings of the resolution are left out."""
    from torchvision.models import mobilenet_v2

    network = mobilenet_v2(num_classes=num_classes)
    network.features[0][0].stride = (1, 1)
    network.features[2].conv[1][0].stride = (1, 1)
    return network


def _full_resolution(network: nn.Module) -> nn.Module:
    """A torchvision ResNet that keeps the image's resolution up to its second stage."""
    network.conv1 = _stem()
    network.maxpool = nn.Identity()
    return network


def _stem() -> nn.Conv2d:
    layer = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
