"""Tracing leaves a model, and all that hangs on it, bit for bit as it was, also when it fails."""

from __future__ import annotations

import functools
import gc
import random
import types
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import jitter, worst

_GRID: dict[int, Tensor] = {}
_CALLS = 0


def image() -> Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))


@functools.cache
def grid(size: int) -> Tensor:
    return torch.linspace(0, 1, size)


class Base(nn.Module):
    """Three convolutions around a step that keeps something."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.c, self.scale = nn.Conv2d(8, 2, 1), nn.Parameter(torch.rand(8) + 0.5)

    def step(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.b(self.step(self.a(x))).relu())

    def factor(self) -> Tensor:
        return self.scale.sigmoid()[:, None, None]


class InDict(Base):
    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}

    def step(self, x: Tensor) -> Tensor:
        if "factor" not in self.kept:
            self.kept["factor"] = self.factor()
        return x * self.kept["factor"]


class InList(Base):
    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor | None] = [None]
        self.seen: deque[Tensor] = deque(maxlen=2)

    def step(self, x: Tensor) -> Tensor:
        factor = self.kept[0]
        if factor is None:
            factor = self.kept[0] = self.factor()
        self.seen.append(x)
        return x * factor


class InAttribute(Base):
    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None
        self.times = 0

    def step(self, x: Tensor) -> Tensor:
        self.times += 1
        if self.kept is None:
            self.kept = self.factor()
        return x * self.kept


class InCache(Base):
    def __init__(self) -> None:
        super().__init__()
        self.cached = functools.lru_cache(maxsize=2)(self._factor)

    def _factor(self, dtype: torch.dtype) -> Tensor:
        return self.factor().to(dtype)

    def step(self, x: Tensor) -> Tensor:
        return x * self.cached(x.dtype)


class InClass(Base):
    grids: dict[int, Tensor] = {}  # noqa: RUF012 (the point of it)
    last: Tensor | None = None

    def step(self, x: Tensor) -> Tensor:
        if x.shape[-1] not in self.grids:
            self.grids[x.shape[-1]] = torch.linspace(0, 1, x.shape[-1])
        InClass.last = self.grids[x.shape[-1]]
        return x * InClass.last


class InModule(Base):
    def step(self, x: Tensor) -> Tensor:
        global _CALLS
        _CALLS += 1
        if x.shape[-1] not in _GRID:
            _GRID[x.shape[-1]] = torch.linspace(0, 1, x.shape[-1])
        return x * grid(x.shape[-1]) * _GRID[x.shape[-1]]


class InObject(Base):
    class Memory:
        def __init__(self) -> None:
            self.value: Tensor | None = None

    def __init__(self) -> None:
        super().__init__()
        self.memory = self.Memory()

    def step(self, x: Tensor) -> Tensor:
        self.memory.value = x.mean((2, 3), keepdim=True)
        return x + self.memory.value


class InHook(Base):
    def __init__(self) -> None:
        super().__init__()
        outputs: list[Tensor] = []
        count, last = torch.zeros(1), None

        def hook(module: nn.Module, given: object, output: Tensor) -> None:
            nonlocal last
            outputs.append(output)
            last = output
            with torch.no_grad():
                count.add_(1)

        self.outputs = outputs
        self.b.register_forward_hook(hook)


class Fails(InDict):
    """Cannot be captured, after it has kept something."""

    def step(self, x: Tensor) -> Tensor:
        x = super().step(x)
        return x if x.sum() > 0 else -x


KINDS = (InDict, InList, InAttribute, InCache, InClass, InModule, InObject, InHook)


def snapshot(root: object) -> tuple[list[tuple[int, Any]], list[object]]:
    """Everything on which a model hangs: identities in containers, and values of tensors.

    By the collector's own knowledge of references, not by that of the code under test.
    """
    found: list[tuple[int, Any]] = []
    seen: dict[int, object] = {}
    left = [root]
    while left:
        each = left.pop()
        if id(each) in seen or (isinstance(each, type) and each.__module__ != __name__):
            continue
        seen[id(each)] = each
        if isinstance(each, Tensor):  # without values: what exporting left
            assert not isinstance(each, FakeTensor)
            found.append((id(each), (each.detach().clone(), each.requires_grad)))
        elif isinstance(each, (dict, OrderedDict)) and each is not globals():
            found.append((id(each), [(k, id(v)) for k, v in each.items()]))
            left += list(each.values())
        elif isinstance(each, (list, tuple, set, deque)):
            found.append((id(each), [id(v) for v in each]))
            left += list(each)
        elif isinstance(each, nn.Module) or type(each).__module__ == __name__:
            left.append(each.__dict__)
        elif isinstance(each, types.FunctionType):
            left += list(each.__closure__ or ())
        elif callable(each) or isinstance(each, types.CellType):
            referents = gc.get_referents(each)
            found.append((id(each), list(map(id, referents))))
            left += [r for r in referents if r is not globals() and not hasattr(r, "__spec__")]
    return found, list(seen.values())


def same(before: list[tuple[int, Any]], after: list[tuple[int, Any]]) -> bool:
    if [i for i, _ in before] != [i for i, _ in after]:
        return False
    return all(
        torch.equal(old[0], new[0]) and old[1] == new[1]
        if isinstance(old, tuple) and isinstance(old[0], Tensor)
        else old == new
        for (_, old), (_, new) in zip(before, after, strict=True)
    )


@pytest.mark.parametrize("run_before", ["not run", "run", "run with gradients"])
@pytest.mark.parametrize("kind", KINDS)
def test_tracing_leaves_the_model_as_it_was_and_pruning_it_is_right(
    kind: Callable[[], nn.Module], run_before: str
) -> None:
    network = kind().eval()
    x = image()
    if run_before != "not run":
        with torch.set_grad_enabled(run_before == "run with gradients"):
            network(x)
    draws = torch.get_rng_state(), random.getstate(), np.random.get_state()
    modes = [m.training for m in network.modules()]
    grids, calls = (_GRID.copy(), InClass.grids.copy()), (_CALLS, InClass.last)
    before, alive = snapshot(network)
    cached = grid.cache_info().currsize
    graph = ChannelGraph.trace(network, x)
    after, _ = snapshot(network)
    assert same(before, after)
    assert (_GRID, InClass.grids) == grids and _CALLS == calls[0] and InClass.last is calls[1]
    assert grid.cache_info().currsize <= cached
    snapshot((grid, _GRID, InClass.grids))  # finds no tensor without values
    assert [m.training for m in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), draws[0]) and random.getstate() == draws[1]
    assert str(np.random.get_state()) == str(draws[2])
    assert [group.size for group in graph.groups] == [8, 8]
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    network(x)  # now it keeps what is as wide as before
    with torch.no_grad():
        pruned, masked = graph.prune(network, keep), graph.mask(network, keep)
        assert worst(pruned(x), masked(x)) < 1e-4
        assert worst(pruned(x), masked(x)) < 1e-4
        masked.get_parameter("c.weight").zero_()
    assert network(x).abs().max() > 0
    del alive


def test_tracing_that_fails_leaves_the_model_as_it_was() -> None:
    network, x = Fails().eval(), image()
    before, alive = snapshot(network)
    with pytest.raises(ValueError, match="cannot capture Fails in eval mode"):
        ChannelGraph.trace(network, x)
    with pytest.raises(ValueError, match="does not accept it"):
        ChannelGraph.trace(network, image()[:, :2])
    assert same(before, snapshot(network)[0])
    del alive


def test_a_pruned_copy_asks_its_own_method_not_the_originals() -> None:
    network = InCache()
    network.double().eval()
    jitter(network)
    x = image().double()
    graph = ChannelGraph.trace(network, x)
    pruned = graph.prune(network, graph.random_keep(0.5, np.random.default_rng(0)))
    assert isinstance(pruned, InCache)
    pruned.scale.data.fill_(-1e3)
    assert pruned.cached(torch.float64).max() == 0
    assert network.cached(torch.float64).min() > 0


def test_what_a_model_keeps_is_copied_too_after_something_was_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dynamo puts a function of its own in the place of `nn.Module.__setstate__`, for good."""
    plain = nn.Module.__setstate__

    def watched(self: nn.Module, state: dict[str, object]) -> None:
        plain(self, state)

    monkeypatch.setattr(nn.Module, "__setstate__", watched)
    network, x = InDict().eval(), image()
    network(x)  # with gradients: what it keeps is a result
    assert [group.size for group in ChannelGraph.trace(network, x).groups] == [8, 8]
