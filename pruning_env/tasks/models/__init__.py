"""Network architectures for small images, and the reading of weights files.

Plain `nn.Module` classes that know nothing of pruning: the same code anyone would write for
training.
"""

from pruning_env.tasks.models.cifar_resnet import CifarResNet, PadShortcut
from pruning_env.tasks.models.googlenet import CifarGoogLeNet
from pruning_env.tasks.models.lenet import LeNet5
from pruning_env.tasks.models.loading import load_state_file, read_state_file
from pruning_env.tasks.models.mobilenet_v3 import CifarMobileNetV3
from pruning_env.tasks.models.small_images import (
    cifar_densenet121,
    cifar_mobilenet_v2,
    cifar_resnet18,
    cifar_resnet50,
)
from pruning_env.tasks.models.vgg import CifarVGG

__all__ = [
    "CifarGoogLeNet",
    "CifarMobileNetV3",
    "CifarResNet",
    "CifarVGG",
    "LeNet5",
    "PadShortcut",
    "cifar_densenet121",
    "cifar_mobilenet_v2",
    "cifar_resnet18",
    "cifar_resnet50",
    "load_state_file",
    "read_state_file",
]
