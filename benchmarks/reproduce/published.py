"""Numbers that others published, as goals to put beside ours; nothing here was measured by us.

Sources: RL-Pruner, arXiv 2411.06463, the figure of results in its repository; Malik et al. 2022
("constrained RL"), arXiv 2110.08558, abstract; for ResNets on CIFAR-10 the papers that each row
names, as their tables have them or as later papers quote them. RL-Pruner and Malik et al. chose
checkpoints on the test set, with one seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["CIFAR10", "CONSTRAINED_RL", "RL_PRUNER", "RL_PRUNER_DENSE", "Published"]


@dataclass(frozen=True)
class Published:
    """One pruned network of a paper.

    Attributes:
        method: Whose, and which variant.
        accuracy: Test top-1 in percent; None where the paper's row was not to be had.
        macs_cut: Percent of multiply-accumulates removed; None where not stated. RL-Pruner's count
            includes 4 operations per input of a batch norm, which changes shares by less than 1
            percent of the whole.
        params_cut: Percent of parameters removed; None where not stated.
    """

    method: str
    accuracy: float | None
    macs_cut: float | None
    params_cut: float | None


#: Dense test accuracy in percent, of the same figure.
RL_PRUNER_DENSE: Mapping[str, float] = MappingProxyType(
    {
        "cifar100-vgg19": 72.89,
        "cifar100-resnet56": 72.25,
        "cifar100-googlenet": 77.62,
        "cifar100-densenet121": 79.83,
        "cifar100-mobilenetv3": 56.18,
    }
)

_FIGURE = """
cifar100-vgg19 acc 73.09/22.62/35.30 73.11/35.11/62.18 73.00/43.55/79.46 71.25/55.71/89.34
cifar100-vgg19 macs 73.05/26.09/36.58 72.65/39.40/63.12 72.50/47.33/81.04 71.51/53.96/90.38
cifar100-vgg19 params 73.00/24.54/36.02 72.08/38.94/63.70 71.98/47.43/81.98 71.67/56.84/91.44
cifar100-resnet56 acc 70.79/51.01/37.67 68.33/73.36/66.19 59.65/87.02/89.32 37.74/95.51/97.77
cifar100-resnet56 macs 71.21/49.92/34.53 68.36/75.69/68.81 61.49/84.50/88.13 40.22/94.06/97.28
cifar100-resnet56 params 71.41/51.05/37.28 68.46/75.86/70.80 60.68/87.19/88.32 40.02/95.65/97.69
cifar100-densenet121 acc 78.60/38.59/36.22 77.08/67.26/64.60 73.33/85.72/82.60 69.10/95.26/94.50
cifar100-densenet121 macs 79.08/44.15/37.91 76.43/72.77/67.41 71.67/87.51/83.84 67.71/95.44/94.67
cifar100-densenet121 params 78.44/39.76/39.10 76.21/68.32/67.25 73.85/85.98/84.14 69.73/94.95/95.01
cifar100-googlenet acc 77.61/31.78/34.09 76.78/53.88/60.55 74.17/72.65/81.05 69.96/89.85/95.23
cifar100-googlenet macs 77.62/35.67/34.01 77.00/58.45/61.06 74.16/75.66/82.17 69.37/86.96/95.39
cifar100-googlenet params 77.64/32.21/34.49 76.47/55.57/60.75 73.85/71.10/81.18 69.47/88.73/94.88
cifar100-mobilenetv3 acc 56.26/33.01/36.22 55.32/61.63/63.95 52.66/79.98/83.81 42.41/92.78/95.85
cifar100-mobilenetv3 macs 56.26/33.01/36.22 55.32/61.63/63.95 53.28/80.17/83.74 41.65/93.14/95.91
cifar100-mobilenetv3 params 56.76/33.12/36.51 55.74/61.46/65.23 53.08/79.54/84.53 44.10/92.57/96.08
"""
_SPARSITIES = (20, 40, 60, 80)


def _figure() -> dict[str, dict[int, tuple[Published, ...]]]:
    found: dict[str, dict[int, tuple[Published, ...]]] = {}
    for line in _FIGURE.split("\n"):
        if not line:
            continue
        task, reward, *entries = line.split()
        levels = found.setdefault(task, dict.fromkeys(_SPARSITIES, ()))
        for sparsity, entry in zip(_SPARSITIES, entries, strict=True):
            accuracy, macs, params = map(float, entry.split("/"))
            row = Published(f"RL-Pruner ({reward} reward)", accuracy, macs, params)
            levels[sparsity] += (row,)
    return found


#: By task and percent of filters and neurons removed: the rows of the three rewards.
RL_PRUNER: Mapping[str, Mapping[int, tuple[Published, ...]]] = MappingProxyType(_figure())

#: By task. Malik et al. state 83-92.90 % on VGG variants "at comparable or better accuracy" and
#: 75.09 % on ResNet-18 "without loss"; their removals are of single weights.
CONSTRAINED_RL: Mapping[str, tuple[Published, ...]] = MappingProxyType(
    {
        "cifar10-vgg16": (Published("Malik et al., VGG variants", None, None, 92.90),),
        "cifar10-vgg11": (Published("Malik et al., VGG variants", None, None, 92.90),),
        "cifar10-vgg19": (Published("Malik et al., VGG variants", None, None, 92.90),),
        "cifar10-resnet18": (Published("Malik et al.", None, None, 75.09),),
    }
)

#: By task, networks on CIFAR-10, trained for 100 to 480 epochs after or while pruning, the epoch
#: chosen on test where a paper says how. Cuts of about half (47 to 54 %) are entered as 50.
CIFAR10: Mapping[str, tuple[Published, ...]] = MappingProxyType(
    {
        "cifar10-resnet56": (
            Published("AMC, He et al. 2018 (dense 92.8)", 91.90, 50.0, None),
            Published("HRank, Lin et al. 2020", 93.17, 50.0, None),
            Published("DECORE, Alwani et al. 2022", 93.26, 50.0, None),
            Published("DepGraph, Fang et al. 2023", 93.46, 50.0, None),
            Published("GNN-RL, Yu et al. 2022", 93.49, 50.0, None),
            Published("GReg, Wang et al. 2021", 93.55, 50.0, None),
            Published("ResRep, Ding et al. 2021", 93.71, 50.0, None),
            Published("DepGraph, sparse learning", 93.77, 50.0, None),
            Published("CHIP, Sui et al. 2021", 94.16, 50.0, None),
            Published("CORING, Pham et al. 2024", 94.22, 50.0, None),
            Published("CHIP, Sui et al. 2021", 92.43, 74.0, None),
            Published("DECORE, Alwani et al. 2022", 90.85, 81.5, None),
        ),
        "cifar10-resnet32": (
            Published("LFPC, He et al. 2020", 92.12, 53.0, None),
            Published("PPSM", 93.31, 53.0, None),
        ),
    }
)
