"""Activations that leak: which, by how much, in place or not, and nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from pruning_env.graph.leaks import Leaking

FLAT = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid)


@pytest.mark.parametrize("kind", FLAT)
@pytest.mark.parametrize("inplace", [False, True])
def test_a_flat_activation_lets_a_quarter_of_the_rest_through(kind: type, inplace: bool) -> None:
    x = torch.linspace(-9, 9, 37)
    flat = kind()(x)
    given = x.clone()
    with Leaking():
        leaking = kind(inplace=inplace)(given)
    torch.testing.assert_close(leaking, flat + (x - flat) / 4)
    assert not inplace or leaking.data_ptr() == given.data_ptr()
    assert torch.equal(kind()(x), flat)


@pytest.mark.parametrize("name", ["relu", "relu_"])
def test_functions_and_methods_leak_alike(name: str) -> None:
    x = torch.tensor([-4.0, 4.0])
    with Leaking():
        results = [getattr(torch, name)(x.clone()), getattr(x.clone(), name)()]
        results.append(functional.relu(input=x.clone(), inplace=name.endswith("_")))
    assert [r.tolist() for r in results] == [[-1.0, 4.0]] * 3


def test_what_is_not_flat_and_what_is_not_real_stay() -> None:
    x = torch.tensor([-4.0, 4.0])
    with Leaking():
        gelu = functional.gelu(x)
        assert torch.tensor([-4, 4]).relu().tolist() == [0, 4]
    assert torch.equal(gelu, functional.gelu(x))
