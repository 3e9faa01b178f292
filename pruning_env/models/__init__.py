"""Network architectures that are not in torchvision, and the reading of weights files.

Plain `nn.Module` classes that know nothing of pruning: the same code anyone would write for
training.
"""

from pruning_env.models.cifar_resnet import CifarResNet, PadShortcut
from pruning_env.models.lenet import LeNet5
from pruning_env.models.loading import load_state_file, read_state_file
from pruning_env.models.vgg import CifarVGG

__all__ = [
    "CifarResNet",
    "CifarVGG",
    "LeNet5",
    "PadShortcut",
    "load_state_file",
    "read_state_file",
]
