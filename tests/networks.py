"""Helpers of the tests that build and compare networks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


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
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [leaf for item in output for leaf in leaves(item)]
    return []


def worst(given: object, expected: object) -> float:
    """Largest difference of two outputs, relative to the largest value of each of their tensors."""
    pairs = zip(leaves(given), leaves(expected), strict=True)
    return max(
        float((a - b).abs().max() / b.abs().max().clamp_min(1e-300)) for a, b in pairs
    )
