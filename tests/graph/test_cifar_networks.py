"""The networks of the published tables: their sizes are the papers', and they can be pruned."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import (
    CifarGoogLeNet,
    CifarMobileNetV3,
    CifarResNet,
    CifarVGG,
    cifar_densenet121,
    cifar_mobilenet_v2,
    cifar_resnet18,
    cifar_resnet50,
)
from tests.helpers.networks import check_pruning, jitter

Build = Callable[[], nn.Module]


def counted(build: Build) -> tuple[int, int, int]:
    """Parameters, multiply-accumulates, and inputs of batch norms, of one 32 x 32 image."""
    norms = 0

    def add(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal norms
        norms += inputs[0].numel()

    with torch.device("meta"):
        model = build().eval()
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.register_forward_hook(add)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.empty(1, 3, 32, 32))
    return sum(p.numel() for p in model.parameters()), counter.get_total_flops() // 2, norms


@pytest.mark.parametrize(
    ("build", "parameters", "macs", "published"),
    [
        # RL-Pruner's table, in millions; its counter (thop) has 4 operations per input of a batch
        # norm, and those of poolings: 18,000 in MobileNetV3, of no weight in the others.
        (
            lambda: CifarVGG(19, num_classes=100, hidden=4096),
            *(39_327_652, 417_415_168, "39.33/418.63"),
        ),
        (
            lambda: CifarResNet(56, num_classes=100, shortcut="B"),
            *(861_620, 125_753_600, "0.86/127.93"),
        ),
        (lambda: cifar_densenet121(num_classes=100), 7_048_548, 888_442_880, "7.05/907.93"),
        (lambda: CifarGoogLeNet(num_classes=100), 6_402_884, 531_976_192, "6.40/535.66"),
        (lambda: CifarMobileNetV3(num_classes=100), 4_025_832, 7_053_200, "4.03/7.47"),
    ],
    ids=["vgg19", "resnet56", "densenet121", "googlenet", "mobilenetv3"],
)
def test_the_networks_of_rl_pruner_have_its_parameters_and_macs(build, parameters, macs, published):
    own_parameters, own_macs, norms = counted(build)
    assert (own_parameters, own_macs) == (parameters, macs)
    published_parameters, published_macs = published.split("/")
    assert f"{own_parameters / 1e6:.2f}" == published_parameters
    poolings = 0.1
    assert 0 <= float(published_macs) + 0.005 - (own_macs + 4 * norms) / 1e6 < poolings


@pytest.mark.parametrize(
    ("build", "parameters", "macs"),
    [
        # Malik et al. state 9.22, 14.7 and 20.0 million weights for the VGGs with one classifier,
        # which are those of the convolutions.
        (lambda: CifarVGG(11), 9_231_114, 152_769_536),
        (lambda: CifarVGG(16), 14_728_266, 313_201_664),
        (lambda: CifarVGG(19), 20_040_522, 398_136_320),
        # The usual 11.17 and 23.52 million of ResNets with a 3 x 3 stem and 10 classes.
        (cifar_resnet18, 11_173_962, 555_422_720),
        (cifar_resnet50, 23_520_842, 1_297_829_888),
        (cifar_mobilenet_v2, 2_236_682, 87_976_448),
        # Option A has no parameters in its shortcuts.
        (lambda: CifarResNet(32), 464_154, 68_862_592),
        (lambda: CifarResNet(56), 853_018, 125_485_696),
        (lambda: CifarResNet(32, shortcut="B"), 466_906, 69_124_736),
    ],
)
def test_the_other_networks_have_their_usual_sizes(build, parameters, macs):
    assert counted(build)[:2] == (parameters, macs)


NETWORKS: list[object] = [
    pytest.param(lambda: CifarVGG(11), id="vgg11"),
    pytest.param(lambda: CifarResNet(32), id="resnet32-a"),
    pytest.param(lambda: CifarResNet(32, shortcut="B"), id="resnet32-b"),
    pytest.param(cifar_resnet18, id="resnet18"),
    pytest.param(CifarGoogLeNet, id="googlenet", marks=pytest.mark.slow),
    pytest.param(CifarMobileNetV3, id="mobilenetv3"),
    pytest.param(cifar_mobilenet_v2, id="mobilenetv2", marks=pytest.mark.slow),
    pytest.param(cifar_resnet50, id="resnet50", marks=pytest.mark.slow),
    pytest.param(cifar_densenet121, id="densenet121", marks=pytest.mark.slow),
    pytest.param(lambda: CifarVGG(16), id="vgg16", marks=pytest.mark.slow),
    pytest.param(lambda: CifarVGG(19, hidden=512), id="vgg19", marks=pytest.mark.slow),
    pytest.param(lambda: CifarResNet(56, shortcut="B"), id="resnet56", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("build", NETWORKS)
def test_pruned_computes_what_masked_does_and_only_the_classifier_is_frozen(build):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().double().eval()
    jitter(model)
    # VGG halves the image five times, as MobileNetV3 does; the others do with less.
    images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    graph = ChannelGraph.trace(model, images)
    assert list(graph.frozen.values()) == ["an output of the model"]
    difference = check_pruning(
        graph, model, (images,), graph.random_keep(0.5, np.random.default_rng(0))
    )
    assert difference.effect > 1e-3


def test_a_negative_number_of_hidden_units_is_named():
    with pytest.raises(ValueError, match="hidden=-1: must be 0 or more"):
        CifarVGG(16, hidden=-1)
