"""One small network per building block: pruned right, and no less prunable than it should be.

Every block sits between a convolution to 8 channels, "stem", and one to 4, "head", which is always
frozen as the output. The tables state the groups that must come out, and what is frozen and why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning_env.graph.channel_graph import ChannelGraph
from tests.helpers import blocks as b
from tests.helpers import necks
from tests.helpers.networks import check_pruning, jitter


class Around(nn.Module):
    def __init__(self, n: int, block: nn.Module) -> None:
        super().__init__()
        self.stem, self.block = b.conv(n, 3, 8, 3), block
        self.head = b.conv(n, block.out, 4)  # type: ignore[arg-type]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.stem(x).relu()))


@dataclass(frozen=True)
class Expected:
    """A block and what its graph must be.

    Attributes:
        build: The block, for 8 channels.
        groups: Sizes of the groups by the name of the first layer, "block." left out.
        frozen: Words of the reason by layer, "block." left out.
        n: Number of spatial dimensions.
    """

    build: Callable[[], nn.Module]
    groups: dict[str, int]
    frozen: dict[str, str] = field(default_factory=dict)
    n: int = 2


def unit(channels: int, out: int, **options: Any) -> b.ConvUnit:
    return b.ConvUnit(2, channels, out, **options)


def residual(how: str) -> b.Residual:
    return b.Residual(2, 8, [unit(8, 6), unit(8, 4)], how=how)


UNUSED = {"scale": "not used"}
BOTH = {"stem": 8, "bodies.0.body.0.conv": 6, "bodies.1.body.0.conv": 4}
FIRST = BOTH | {"bodies.1.body.1": 8}  # the second branch is computed, and joins nothing
HALF = {"stem": 4, "body.body.0.conv": 6, "body.body.1": 4}

BLOCKS: dict[str, Expected] = {
    **{
        f"norm: {norm}": Expected(
            partial(unit, 8, 8, norm=norm),
            {"stem": 8, "conv": 4 if norm == "group of two" else 8},
        )
        for norm in b.NORMS
    },
    **{
        f"activation: {name}": Expected(
            partial(unit, 8, 6, activation=name), {"stem": 8, "conv": 6}
        )
        for name in b.ACTIVATIONS
    },
    "layer norm over channels and space": Expected(
        lambda: b.Chain(nn.LayerNorm([8, 8, 8]), out=8), {}, {"stem": "mixed by layer_norm"}
    ),
    "grouped": Expected(lambda: unit(8, 12, groups=4), {"stem": 2, "conv": 3}),
    "depthwise": Expected(lambda: unit(8, 8, groups=8), {"stem": 8}),
    "depthwise, two outputs each": Expected(lambda: unit(8, 16, groups=8), {"stem": 8}),
    "transposed": Expected(
        lambda: b.TransposedUnit(2, 8, 6, groups=1, bias=False), {"stem": 8, "conv": 6}
    ),
    "transposed, grouped": Expected(
        lambda: b.TransposedUnit(2, 8, 12, groups=4, bias=True), {"stem": 2, "conv": 3}
    ),
    "transposed, depthwise": Expected(
        lambda: b.TransposedUnit(2, 8, 16, groups=8, bias=True), {"stem": 8}
    ),
    "transposed in one dimension": Expected(
        lambda: b.TransposedUnit(1, 8, 6, groups=2, bias=True), {"stem": 4, "conv": 3}, n=1
    ),
    "functional convolutions": Expected(
        lambda: b.FunctionalConv(2, 8, 6), {"stem": 8, "first": 8, "second": 6}
    ),
    "functional depthwise with a buffer": Expected(
        lambda: b.FunctionalDepthwise(2, 8), {"stem": 8}
    ),
    **{
        f"contraction: {how}": Expected(partial(b.Contraction, 8, 6, how=how), {"stem": 8, "": 6})
        for how in ("einsum", "matmul", "matmul from the right", "linear")
    },
    "unfold and linear": Expected(lambda: b.UnfoldedConv(8, 6), {"stem": 8, "mix": 6}),
    "weight tied to its transpose": Expected(lambda: b.Tied(8, 6), {"stem": 8, "": 6}),
    "residual: plain": Expected(lambda: residual("plain"), BOTH, UNUSED),
    "residual: scaled": Expected(lambda: residual("scaled"), BOTH, UNUSED),
    "residual: layer scale": Expected(lambda: residual("layer scale"), FIRST),
    "residual: in place": Expected(lambda: residual("in place"), FIRST, UNUSED),
    "residual: stack": Expected(lambda: residual("stack"), BOTH, UNUSED),
    "residual: mean of stack": Expected(lambda: residual("mean of stack"), BOTH, UNUSED),
    "residual: maximum": Expected(lambda: residual("maximum"), FIRST, UNUSED),
    "residual: where": Expected(lambda: residual("where"), FIRST, UNUSED),
    "residual: addcmul": Expected(lambda: residual("addcmul"), FIRST),
    "residual: lerp": Expected(lambda: residual("lerp"), BOTH, UNUSED),
    "gated linear unit": Expected(lambda: b.Gated(2, 8, 6), {"stem": 8, "both": 6}),
    "branches and the input": Expected(
        lambda: b.Parallel(8, [unit(8, 6), unit(8, 4)], dense=True),
        {"stem": 8, "branches.0.conv": 6, "branches.1.conv": 4},
    ),
    **{
        f"halves: {how}": Expected(partial(b.Halves, 2, 8, unit(4, 6), how=how), HALF)
        for how in ("chunk", "split", "slice", "unbind", "attribute")
    },
    "halves: uneven": Expected(
        lambda: b.Halves(2, 8, unit(4, 6), how="uneven"),
        {"stem": 3, "body.body.0.conv": 6},
        {"stem": "leaves a single channel", "body.body.1": "reduced by mean"},
    ),
    "concatenated and split again": Expected(
        lambda: b.JoinAndSplit(2, unit(8, 6), unit(8, 4)),
        {"stem": 8, "first.conv": 6, "second.body.0.conv": 4},
    ),
    **{
        f"shuffle: {how}": Expected(partial(b.Shuffle, 8, 2, how=how), {"stem": 4})
        for how in b.SHUFFLES
    },
    **{
        # Four groups of two: where an attribute says so, it follows, and a whole group may go.
        f"shuffle of four: {how}": Expected(
            partial(b.Shuffle, 8, 4, how=how), {"stem": 4 if how in ("view", "rest first") else 2}
        )
        for how in b.SHUFFLES
    },
    **{
        f"maxout: {how}": Expected(partial(b.Maxout, 2, 8, 3, 4, how=how), {"stem": 8, "conv": 3})
        for how in ("inner", "outer", "minus one")
    },
    **{
        f"repeated: {how}": Expected(partial(b.Repeated, 8, how=how), {"stem": 8})
        for how in ("repeat", "interleave", "flip")
    },
    "squeeze and excite: linear": Expected(
        lambda: b.SqueezeExcite(2, 8, 3, how="linear"), {"stem": 8, "down": 3}
    ),
    "squeeze and excite: mean": Expected(
        lambda: b.SqueezeExcite(2, 8, 3, how="mean"), {"stem": 8, "down": 3}
    ),
    "CBAM": Expected(
        lambda: b.CBAM(2, 8, 3), {"stem": 8, "mlp.0": 3}, {"spatial.conv": "spread over channels"}
    ),
    "mean over channels in the middle of a forward": Expected(
        lambda: b.Centred(2, 8, 6),
        {"stem": 8, "second": 6},
        {"first": "channels are reduced by mean in block"},
    ),
    "self-attention over places": Expected(
        lambda: b.SelfAttention(2, 8, 3), {"stem": 8, "query": 3}
    ),
    **{
        f"U-Net step: {how}": Expected(
            partial(b.Scales, 2, 8, unit(8, 6), how=how),
            {"stem": 8, "body.conv": 6, **({"up": 6} if how == "transposed" else {})},
        )
        for how in ("transposed", "upsample", "interpolate")
    },
    "U-Net step in three dimensions": Expected(
        lambda: b.Scales(3, 8, b.ConvUnit(3, 8, 6), how="interpolate"),
        {"stem": 8, "body.conv": 6},
        n=3,
    ),
    "pixel shuffle": Expected(
        lambda: b.PixelShuffled(8, 6, written_out=False), {"stem": 8, "conv": 6}
    ),
    "pixel shuffle, written out": Expected(
        lambda: b.PixelShuffled(8, 6, written_out=True), {"stem": 8, "conv": 6}
    ),
    "focus": Expected(lambda: b.Focus(8, 6), {"stem": 8, "conv": 6}),
    **{
        f"padded space: {mode}": Expected(
            partial(b.Padded, 2, 8, 6, mode=mode), {"stem": 8, "conv": 6}
        )
        for mode in ("constant", "reflect", "replicate")
    },
    **{
        f"moved places: {how}": Expected(partial(b.Moved, 8, how=how), {"stem": 8})
        for how in b.MOVES
    },
    "option A as a module": Expected(
        lambda: b.OptionA(2, 8, unit(8, 6), more=4, module=True),
        {"stem": 8, "body.body.0.conv": 6, "body.body.1": 4},
    ),
    "option A in a forward": Expected(
        lambda: b.OptionA(2, 8, unit(8, 6), more=4, module=False),
        {"stem": 8, "body.body.0.conv": 6},
        {"body.body.1": "4 of 12 channels: pad in block adds a number of channels"},
    ),
    "one block twice": Expected(
        lambda: b.Twice(2, 8, unit(8, 6)), {"stem": 8, "body.body.0.conv": 6}
    ),
    "one weight in two modules, one module under two names": Expected(
        lambda: b.TwoNames(2, 8), {"stem": 8}
    ),
    "Swin's MLP": Expected(lambda: b.TokenMLP(8, 16), {"stem": 8, "up": 16}),
    "parameters per channel and place": Expected(
        lambda: b.Placed(8, (8, 8)), {"stem": 8}, {"mask": "is spread over channels by mul"}
    ),
    "part of it without gradients": Expected(
        lambda: b.Undifferentiated(2, 8, 6), {"stem": 8, "conv": 6}
    ),
    **necks.expectations(Expected),
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("batch", [1, 2])
def test_a_block_is_pruned_right_and_as_far_as_it_can_be(name: str, batch: int) -> None:
    expected = BLOCKS[name]
    torch.manual_seed(0)
    network = Around(expected.n, expected.build()).double().eval()
    jitter(network)
    inputs = (torch.randn(batch, 3, *[8, 8, 4][: expected.n], dtype=torch.float64),)
    graph = ChannelGraph.trace(network, inputs)

    def short(layer: str) -> str:
        return layer.removeprefix("block").removeprefix(".")

    assert {short(group.name): group.size for group in graph.groups} == expected.groups
    reasons = {short(layer): reason for layer, reason in graph.frozen.items()}
    assert reasons.pop("head") == "an output of the model"
    assert reasons.keys() == expected.frozen.keys()
    for layer, words in expected.frozen.items():
        assert words in reasons[layer]
    for ratio in (0.5, 0.1, 0.9):
        keep = graph.random_keep(ratio, np.random.default_rng(int(10 * ratio)))
        difference = check_pruning(graph, network, inputs, keep)
        if ratio == 0.5 and graph.groups:
            assert difference.effect > 1e-4, "the mask changed nothing: the comparison is empty"
