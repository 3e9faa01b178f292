"""Operators between two convolutions: each passes the channels on, and the pruned network is right.

Every operator that a rule names should be here or in `tests.helpers.blocks`, so that a rule that
stops applying (another argument, another name in a new torch) turns up as channels that are frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as f

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers.networks import check_pruning, jitter

UNARY = """
    relu relu6 hardtanh silu mish gelu elu celu selu leaky_relu rrelu hardswish hardsigmoid
    logsigmoid softplus softsign tanhshrink hardshrink softshrink
""".split()
POINTWISE = """
    sigmoid tanh exp expm1 exp2 log log1p log2 log10 sqrt rsqrt square abs neg reciprocal sign sgn
    floor ceil round trunc frac erf erfc sin cos tan atan sinh cosh asinh nan_to_num positive
    logical_not isnan isinf isfinite zeros_like ones_like
""".split()
BINARY = """
    add sub mul div true_divide remainder fmod pow float_power maximum minimum fmax
    fmin eq ne lt le gt ge logical_and logical_or logical_xor atan2 hypot xlogy copysign
    multiply divide subtract
""".split()
REDUCTIONS = "mean sum amax amin prod std var logsumexp norm nansum nanmean".split()
PICKS = "max min median cummax cummin sort".split()


def neighbours(operator: Callable[..., Tensor], x: Tensor) -> Tensor:
    return operator(x, x.roll(1, -1))


def row(operator: Callable[..., Tensor], x: Tensor) -> Tensor:
    return operator(x, dim=-1, keepdim=True)


def first(operator: Callable[..., Sequence[Tensor]], x: Tensor) -> Tensor:
    """The values, not the indices, over the first places."""
    return operator(x, dim=-1)[0].view(*x.shape[:3], -1)[..., :1]


OPERATORS: dict[str, Callable[[Tensor], Tensor]] = {
    **{name: getattr(f, name) for name in UNARY},
    **{name: getattr(torch, name) for name in POINTWISE},
    **{name: partial(neighbours, getattr(torch, name)) for name in BINARY},
    **{name: partial(row, getattr(torch, name)) for name in REDUCTIONS},
    **{name: partial(first, getattr(torch, name)) for name in PICKS},
    "argmax": lambda x: x.argmax(-1, keepdim=True),
    "argmin": lambda x: x.argmin(-1, keepdim=True),
    "argsort": lambda x: x.argsort(-1),
    "all": lambda x: (x > 0).all(-1, keepdim=True),
    "any": lambda x: (x > 0).any(-1, keepdim=True),
    "count_nonzero": lambda x: x.count_nonzero(-1).unsqueeze(-1),
    "std_mean": lambda x: torch.stack(torch.std_mean(x, -1, keepdim=True)).sum(0),
    "var_mean": lambda x: torch.stack(torch.var_mean(x, -1, keepdim=True)).sum(0),
    "cumsum": lambda x: x.cumsum(-1),
    "cumprod": lambda x: x.cumprod(-1),
    "logcumsumexp": lambda x: x.logcumsumexp(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "softmin": lambda x: f.softmin(x, -1),
    "topk": lambda x: x.topk(3, -1)[0].mean(-1, keepdim=True),
    "clamp": lambda x: x.clamp(0.2, 0.7),
    "clamp_max": lambda x: x.clamp_max(0.7),
    "clip": lambda x: x.clip(0.2, 0.7),
    "threshold": lambda x: f.threshold(x, 0.3, 0.1),
    "logit": lambda x: torch.logit(x, 1e-3),
    "rsub": lambda x: 1 - x,
    "addcdiv": lambda x: torch.addcdiv(x, x, x + 1),
    "bitwise": lambda x: ~(x > 0.3) & (x > 0.1) | (x > 0.5) ^ (x > 0.7),
    "full_like": lambda x: torch.full_like(x, 0.3),
    "type_as": lambda x: x.type_as(x),
    "casts": lambda x: x.double().float().to(torch.float64),
    "new tensors": lambda x: x.new_ones(1) + x.new_full((1, 1, 8, 8), 2.0),
    "dropout": lambda x: f.feature_alpha_dropout(f.alpha_dropout(f.dropout2d(x, 0.1, False))),
    "expand": lambda x: x.mean(-1, keepdim=True).expand(-1, -1, -1, 8),
    "broadcast_to": lambda x: x.mean(-1, keepdim=True).broadcast_to(x.shape),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x.mean(-1, keepdim=True), x)[0],
    "reshape_as": lambda x: x.flatten(1).reshape_as(x),
    "flips": lambda x: x.flipud().fliplr().fliplr().flipud(),
    "transposes": lambda x: x.mT.adjoint().mH,
    "moveaxis": lambda x: x.moveaxis(1, -1).moveaxis(-1, 1),
    "swapdims": lambda x: x.swapdims(2, 3),
    "narrow": lambda x: x.narrow(-1, 1, 1),
    "tile": lambda x: x[..., :4].tile(1, 1, 1, 2),
    "tensor_split": lambda x: sum(x.tensor_split(4, -1)).mean(-1, keepdim=True),  # type: ignore[union-attr]
    "unflatten and split": lambda x: sum(x.flatten(1).unflatten(1, (-1, 8, 8)).split(4, 2)).mean(
        2, True
    ),  # type: ignore[union-attr]
    "floor_divide": lambda x: x.detach().floor_divide(0.1),
    "heaviside": lambda x: x.detach().heaviside(x.detach()),
    "concat": lambda x: torch.concat([x[..., :3], x[..., 3:]], -1),
    "unfold": lambda x: x.unfold(-1, 3, 1).mean(-1).mean(-1, keepdim=True),
    "index_select": lambda x: x.index_select(-1, torch.tensor([3])),
    "take_along_dim": lambda x: x.take_along_dim(x.argmax(-1, keepdim=True), -1),
    "adaptive_max_pool": lambda x: f.adaptive_max_pool2d(x, 1),
    "avg_pool": lambda x: f.avg_pool2d(x, 3, 1, 1),
    "max_pool and back": lambda x: f.max_unpool2d(*f.max_pool2d(x, 2, return_indices=True), (2, 2)),
    "in one dimension": lambda x: f.interpolate(
        f.avg_pool1d(f.max_pool1d(x.flatten(2), 2), 2), scale_factor=4
    ).view(x.shape),
    "linear interpolation in one dimension": lambda x: f.interpolate(
        x.flatten(2), size=64, mode="linear"
    ).view(x.shape),
    "in three dimensions": lambda x: f.interpolate(
        f.adaptive_max_pool3d(x.unsqueeze(2), (1, 4, 4)), size=(1, 8, 8)
    ).squeeze(2),
    "bicubic": lambda x: f.interpolate(x, size=8, mode="bicubic"),
    "antialiased": lambda x: f.interpolate(
        x[..., ::2, ::2], size=8, mode="bilinear", antialias=True
    ),
    "antialiased bicubic": lambda x: f.interpolate(
        x[..., ::2, ::2], size=8, mode="bicubic", antialias=True
    ),
    "nearest-exact": lambda x: f.interpolate(x, size=8, mode="nearest-exact"),
    "grid_sample": lambda x: f.grid_sample(x, x.new_ones(x.shape[0], 8, 8, 2), align_corners=False),
    "grid_sample in three dimensions": lambda x: f.grid_sample(
        x.unsqueeze(2), x.new_ones(x.shape[0], 1, 8, 8, 3), align_corners=False
    ).squeeze(2),
    "unfold and fold": lambda x: f.fold(f.unfold(x, 2, stride=2), (8, 8), 2, stride=2),
}


class Between(nn.Module):
    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 2, 1)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        x = torch.sigmoid(self.a(x))
        return self.b(x + self.operator(x).to(x.dtype))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_leaves_the_channels_free(name: str) -> None:
    network = Between(OPERATORS[name]).double().eval()
    jitter(network)
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    graph = ChannelGraph.trace(network, image)
    assert graph.sizes.tolist() == [6], graph.frozen.get("a")
    check_pruning(graph, network, (image,), graph.random_keep(0.5, np.random.default_rng(0)))


@pytest.mark.parametrize(
    "operator",
    [
        lambda x, w: f.linear(x, w),
        lambda x, w: x @ w.t(),
        lambda x, w: torch.mm(x, w.T),
        lambda x, w: torch.addmm(w.new_zeros(1), x, w.t()),
        lambda x, w: torch.einsum("nc,oc->no", x, w),
        lambda x, w: torch.einsum("oc,nc->no", w, x),
        lambda x, w: torch.tensordot(x, w, dims=([1], [1])),
        lambda x, w: torch.inner(x, w),
    ],
    ids=[
        *("linear", "matmul", "mm", "addmm", "einsum", "einsum, weight first"),
        *("tensordot", "inner"),
    ],
)
def test_a_product_with_a_weight_is_a_layer(
    operator: Callable[[Tensor, Tensor], Tensor],
) -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(4, 2)
            self.weight = nn.Parameter(torch.rand(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(operator(self.conv(x).mean((2, 3)), self.weight).relu())

    network = Product().double().eval()
    image = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    graph = ChannelGraph.trace(network, image)
    assert {group.name: group.size for group in graph.groups} == {"conv": 6, "weight": 4}
    check_pruning(graph, network, (image,), graph.random_keep(0.5, np.random.default_rng(1)))


def test_of_channels_whose_variance_is_taken_two_stay() -> None:
    """A norm by the variance over channels alone, as timm's SimpleNorm: one channel has none."""

    class Norm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.rsqrt(x.var(1, keepdim=True) + 1e-6)

    network = nn.Sequential(nn.Conv2d(3, 8, 3), Norm(), nn.Conv2d(8, 4, 1)).double().eval()
    image = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    graph = ChannelGraph.trace(network, image)
    assert [group.size for group in graph.groups] == [6]
    assert graph.frozen["0"] == "2 of 8 channels: var in 1 needs two values"
    check_pruning(graph, network, (image,), graph.random_keep(0.0, np.random.default_rng(1)))
