"""Gates are the same whether read off inputs or weights, and fall back where inputs mislead."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_env.evaluation.importance import gate_gradients as gates
from pruning_env.evaluation.importance.gate_gradients import gate_gradients
from pruning_env.graph.channel_graph import ChannelGraph

IMAGES = 21  # neither a multiple of the batch nor of the chunk
BATCH = 4


class Chain(nn.Module):
    """conv, conv, linear; subclasses bend the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 6, 3, padding=1)
        self.head = nn.Linear(6, 3)

    def middle(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.middle(self.first(x))).mean((2, 3)))


class Branches(Chain):
    """A channel that two layers and a skip connection read."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Conv2d(8, 6, 1)

    def middle(self, x: Tensor) -> Tensor:
        return self.second(x) + self.other(x) + self.other(torch.relu(x))


class Grouped(Chain):
    """A grouped convolution reads several channels with one column."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(8, 6, 1, groups=2)


class Transposed(Chain):
    """A transposed convolution has its columns in front."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.ConvTranspose2d(8, 6, 2, stride=2)  # type: ignore[assignment]


class Lent(Chain):
    """A weight that a function uses; its module is never called."""

    def middle(self, x: Tensor) -> Tensor:
        return F.conv2d(torch.relu(x), self.second.weight, self.second.bias, padding=1)


class Tripled(Branches):
    """What the second layer read is needed again afterwards."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.second(x)
        return y + self.other(x * 3.0)


class Overwritten(Tripled):
    """The same, but the memory that the second layer read is overwritten."""

    def middle(self, x: Tensor) -> Tensor:
        y = self.second(x)
        return y + self.other(x.mul_(3.0))


class Tiled(Chain):
    """The second layer sees four rows per image."""

    def middle(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        x = x.reshape(n, c, 2, h // 2, w).transpose(1, 2).reshape(2 * n, c, h // 2, w)
        return self.second(torch.relu(x)).reshape(n, 2, -1, h // 2, w).transpose(1, 2).flatten(2, 3)


class Idle(Chain):
    """An auxiliary head that eval mode does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out = self.head(torch.relu(self.second(torch.relu(y))).mean((2, 3)))
        return out + self.auxiliary(y.mean((2, 3))) if self.training else out


class Twice(Chain):
    """One module under two names, called by both."""

    def __init__(self) -> None:
        super().__init__()
        self.twin = nn.Conv2d(6, 6, 3, padding=1)
        self.same = self.twin

    def middle(self, x: Tensor) -> Tensor:
        x = super().middle(x)
        return self.same(torch.relu(self.twin(x)))


def loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(outputs, labels, reduction="sum")


def paths_taken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    taken: list[str] = []

    def noting(name: str, function: Callable) -> Callable:
        def noted(*given):  # type: ignore[no-untyped-def]
            result = function(*given)
            if result is not None:
                taken.append(name)
            return result

        return noted

    for name in ("_by_inputs", "_by_weights"):
        monkeypatch.setattr(gates, name, noting(name, getattr(gates, name)))
    return taken


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Chain, "_by_inputs"),
        (Branches, "_by_inputs"),
        (Grouped, "_by_inputs"),
        (Transposed, "_by_inputs"),
        (Tripled, "_by_inputs"),
        (Idle, "_by_inputs"),
        (Lent, "_by_weights"),
        (Tiled, "_by_weights"),
        (Twice, "_by_weights"),
    ],
)
def test_both_ways_agree_and_the_right_one_is_taken(
    kind: type[Chain], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = kind().double().eval()
    graph = ChannelGraph.trace(model, torch.zeros(1, 2, 6, 6, dtype=torch.float64))
    assert graph.num_channels >= 7
    images, labels = torch.randn(IMAGES, 2, 6, 6).double(), torch.randint(0, 3, (IMAGES,))
    monkeypatch.setattr(gates, "_CHUNK", 10 * images[0].numel())  # several chunks
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    own = list(model.parameters())
    taken = paths_taken(monkeypatch)
    found = gate_gradients(graph, model, images, labels, loss, BATCH)
    assert taken == [path]
    monkeypatch.setattr(gates, "_taps", lambda *_: None)
    expected = gate_gradients(graph, model, images, labels, loss, BATCH)
    assert taken == [path, "_by_weights"]
    assert found.shape == (-(-IMAGES // BATCH), graph.num_channels)
    assert np.abs(expected).max() > 1e-6
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-12)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(a is b for a, b in zip(model.parameters(), own, strict=True))
    assert not any(p.grad is not None for p in model.parameters())
    assert not any(m._forward_pre_hooks for m in model.modules()), "a hook stayed"


def test_what_is_overwritten_later_counts_as_it_was_read() -> None:
    torch.manual_seed(0)
    plain, overwriting = Tripled().double().eval(), Overwritten().double().eval()
    overwriting.load_state_dict(plain.state_dict())
    images, labels = torch.randn(IMAGES, 2, 6, 6).double(), torch.randint(0, 3, (IMAGES,))
    found = []
    for model in (plain, overwriting):
        graph = ChannelGraph.trace(model, images[:1])
        found.append(gate_gradients(graph, model, images, labels, loss, BATCH))
    assert found[0].shape == found[1].shape
    assert np.allclose(found[0], found[1], rtol=1e-12)
