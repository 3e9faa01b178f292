"""Helpers of the tests that build and compare networks."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
import torchvision  # noqa: F401  (it registers the operator that `_COUNTED` names)
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from pruning_env.graph.channel_graph import ChannelGraph


def jitter(model: nn.Module, seed: int = 0) -> None:
    """Move every tensor off its constant initial value, so that no wrong index cancels."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            constant = tensor.dim() <= 1 or bool((tensor == tensor.flatten()[0]).all())
            tensor.data.copy_(tensor * (0.75 + 0.5 * noise) + (0.05 * noise if constant else 0))


def leaves(output: object) -> list[Tensor]:
    """Every tensor of a nested output, in order."""
    return [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]


def worst(given: object, expected: object) -> float:
    """Largest difference of two outputs, relative to the largest value of each of their tensors."""
    pairs = zip(leaves(given), leaves(expected), strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs)


@dataclass(frozen=True)
class Difference:
    """What pruning a network came to.

    Attributes:
        error: Of the pruned network from the masked one, relative.
        effect: Of the mask on the dense network, relative.
    """

    error: float
    effect: float


def run(network: nn.Module, inputs: tuple[Tensor, ...]) -> object:
    """What a network returns without gradients, its random draws always the same."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        return network(*inputs)


def _deformable_flops(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    *_: object,
    out_shape: tuple[int, ...],
    **__: object,
) -> int:
    """What the counter says of a convolution: twice the multiply-accumulates."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


_COUNTED = {torch.ops.torchvision.deform_conv2d: _deformable_flops}


def check_pruning(
    graph: ChannelGraph, network: nn.Module, inputs: tuple[Tensor, ...], keep: np.ndarray
) -> Difference:
    """Assert all that must hold of any network in double precision, under any mask."""
    before = copy.deepcopy(network.state_dict())
    for layer, reason in graph.frozen.items():
        assert reason, f"{layer} is frozen without a reason"
        assert "no rule for" not in reason and "failed" not in reason, f"{layer}: {reason}"
    # With gradients: fused layers are not counted.
    with FlopCounterMode(display=False, custom_mapping=_COUNTED) as counter:
        graph.prune(network, keep)(*inputs)
    dense = run(network, inputs)  # what it keeps from this call must not reach the others
    pruned, masked = graph.prune(network, keep), graph.mask(network, keep)
    given, expected = run(pruned, inputs), run(masked, inputs)
    error = worst(given, expected)
    assert error <= 1e-10, f"pruned and masked differ by {error:.1e}"
    same = run(graph.prune(network, graph.full()), inputs)
    assert all(map(torch.equal, leaves(same), leaves(dense)))
    assert graph.params(keep) == sum(p.numel() for p in pruned.parameters())
    # An einsum over a single channel left is a plain product, which the counter does not see; and
    # nothing keeps code from deciding by widths where its result is not used.
    every = list(network.modules())
    ignored = [
        m for owner in every for branch in getattr(owner, "ignored", []) for m in branch.modules()
    ]
    uncounted = any(getattr(m, "how", "") == "einsum" for m in every)
    if not (uncounted or any(hasattr(m, "decides") for m in ignored)):
        assert graph.macs(keep) * 2 * len(inputs[0]) == counter.get_total_flops()
    outputs = pruned.train()(*(torch.cat([x, x, x]) for x in inputs))
    sum(leaf.square().mean() for leaf in leaves(outputs)).backward()  # type: ignore[union-attr]
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return Difference(error, worst(expected, dense))
