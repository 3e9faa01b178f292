"""A `hypothesis` strategy that builds random convolutional networks from `tests.helpers.blocks`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.helpers import blocks as b
from tests.helpers import odd_blocks as odd
from tests.helpers.networks import jitter

Draw = Callable[..., Any]


class Outputs(NamedTuple):
    main: Tensor
    extra: Tensor


class Network(nn.Module):
    """One or two inputs, a stem for each, blocks, and heads that return what `form` says."""

    def __init__(
        self,
        stems: Sequence[nn.Module],
        join: str,
        body: Sequence[b.Block],
        heads: Sequence[nn.Module],
        auxiliary: nn.Module | None,
        form: str,
    ) -> None:
        super().__init__()
        self.stems, self.body = nn.ModuleList(stems), nn.ModuleList(body)
        self.heads, self.auxiliary = nn.ModuleList(heads), auxiliary
        self.join, self.form = join, form

    def extra_repr(self) -> str:
        return f"join={self.join}, form={self.form}"

    def forward(self, *images: Tensor) -> object:
        features = [stem(image) for stem, image in zip(self.stems, images, strict=True)]
        x = torch.cat(features, 1) if self.join == "cat" else sum(features[1:], features[0])
        middle = x
        for i, block in enumerate(self.body):
            x = block(x)
            middle = x if i == 0 else middle
        outputs = [head(x) for head in self.heads]
        if self.auxiliary is not None and self.training:
            outputs.append(self.auxiliary(middle))
        if len(outputs) == 1:
            return {"out": outputs[0]} if self.form == "dict" else outputs[0]
        if self.form == "dict":
            return {f"out{i}": y for i, y in enumerate(outputs)}
        return Outputs(*outputs) if self.form == "named" and len(outputs) == 2 else outputs


class Head(nn.Module):
    """From a map to a few numbers."""

    def __init__(self, n: int, channels: int, space: Sequence[int], kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.pool, self.relu = b.POOL[n](1), nn.ReLU()
        places = int(torch.tensor(list(space)).prod())
        if kind == "map":
            self.fc: nn.Module = b.conv(n, channels, 2)
        elif kind == "mlp":
            self.fc = nn.Sequential(nn.Linear(channels, 7), nn.ReLU(), nn.Linear(7, 3))
        else:
            self.fc = nn.Linear(channels * (places if kind == "flatten" else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "map":
            return self.fc(x)
        if self.kind == "flatten":
            return self.fc(self.relu(x).flatten(1))
        if self.kind == "squeeze":
            return self.fc(self.pool(x).squeeze())
        if self.kind == "view":
            return self.fc(self.pool(x).view(x.shape[0], -1))
        return self.fc(x.mean(tuple(range(2, x.dim()))))


@dataclass(frozen=True)
class Case:
    """A network with the shapes of its inputs, and how much of it to keep."""

    network: Network
    shapes: tuple[tuple[int, ...], ...]
    ratio: float
    seed: int

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Noise in double precision."""
        generator = torch.Generator().manual_seed(self.seed)
        return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in self.shapes)


@st.composite
def cases(draw: Draw) -> Case:
    """Networks of one to three spatial dimensions in double precision, no constant parameters."""
    n = draw(st.sampled_from([2, 2, 2, 1, 3]))
    batch = draw(st.sampled_from([2, 1]))
    space = {1: (8,), 2: (8, 8), 3: (4, 4, 4)}[n]
    seed = draw(st.integers(0, 9))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _network(draw, n, batch, space)
    network.double().eval()
    jitter(network, seed)
    shapes = ((batch, 3, *space),) * len(network.stems)
    return Case(network, shapes, draw(st.sampled_from([0.5, 0.1, 0.9, 0.3])), seed)


def _network(draw: Draw, n: int, batch: int, space: tuple[int, ...]) -> Network:
    channels = draw(st.sampled_from([4, 6, 8]))
    join = draw(st.sampled_from(["one", "one", "one", "cat", "add"]))
    stems = [b.conv(n, 3, channels, 3) for _ in range(1 if join == "one" else 2)]
    channels *= 2 if join == "cat" else 1
    body: list[b.Block] = []
    for _ in range(draw(st.integers(1, 4))):
        body.append(_block(draw, n, channels, space, 2))
        channels = body[-1].out
    kinds = ["mean", "flatten", "map", "mlp", "view", *(["squeeze"] if batch > 1 else [])]
    heads = [
        Head(n, channels, space, draw(st.sampled_from(kinds)))
        for _ in range(draw(st.sampled_from([1, 1, 1, 2])))
    ]
    auxiliary = Head(n, body[0].out, space, "mlp") if draw(st.integers(0, 5)) == 5 else None
    return Network(
        stems, join, body, heads, auxiliary, draw(st.sampled_from(["plain", "dict", "named"]))
    )


def _block(draw: Draw, n: int, c: int, space: tuple[int, ...], depth: int) -> b.Block:
    """One block for `c` channels; blocks in blocks while `depth` lasts."""

    def inner(channels: int = c, places: tuple[int, ...] = space) -> b.Block:
        return _block(draw, n, channels, places, depth - 1)

    def pick(*options: Any) -> Any:
        return draw(st.sampled_from(options))

    out = pick(c, 4, 6, 8)
    simple: list[Callable[[], b.Block]] = [
        lambda: _unit(draw, n, c, out),
        lambda: b.TransposedUnit(n, c, out, groups=_groups(draw, c, out), bias=pick(True, False)),
        lambda: b.TransposedUnit(n, c, c * pick(1, 2), groups=c, bias=True),
        lambda: b.FunctionalConv(n, c, out),
        lambda: b.FunctionalDepthwise(n, c),
        lambda: b.Contraction(
            c, out, how=pick("einsum", "matmul", "matmul from the right", "linear")
        ),
        lambda: b.Tied(c, out),
        lambda: b.Gated(n, c, out),
        lambda: b.Maxout(n, c, out, pick(2, 3), how=pick("inner", "outer", "minus one")),
        lambda: b.SqueezeExcite(n, c, pick(2, 3), how=pick("linear", "mean", "pool")),
        lambda: b.CBAM(n, c, 3),
        lambda: b.Centred(n, c, out),
        lambda: b.SelfAttention(n, c, 2),
        lambda: b.Padded(n, c, out, mode=pick("constant", "replicate", "reflect")),
        lambda: b.Moved(c, how=pick(*b.MOVES)),
        lambda: b.TwoNames(n, c),
        lambda: b.TokenMLP(c, 2 * c),
        lambda: b.Placed(c, space),
        lambda: b.Undifferentiated(n, c, out),
        lambda: b.Repeated(c, how=pick("repeat", "interleave", "flip")),
        lambda: odd.Deciding(n, c, out, pick(*odd.DECISIONS), bound=pick(2, 3, 5)),
        lambda: odd.Keeping(c, pick(*odd.KEEPERS)),
        lambda: odd.Parametrized(n, c, out, pick(*odd.PARAMETRIZATIONS)),
        lambda: odd.Drawing(n, c, out, pick(*odd.DRAWS)),
        lambda: odd.TrainOnly(c, pick(*odd.TRAIN_ONLY)),
    ]
    if n == 2:
        simple += [
            lambda: b.UnfoldedConv(c, out),
            lambda: b.PixelShuffled(c, pick(3, 4), written_out=pick(False, True)),
            lambda: b.Focus(c, out),
        ]
    if c % 2 == 0:
        simple.append(lambda: b.Shuffle(c, pick(*_divisors(c)), how=pick(*b.SHUFFLES)))
    nested: list[Callable[[], b.Block]] = [
        lambda: b.Residual(n, c, [inner() for _ in range(pick(1, 2))], how=pick(*b.RESIDUALS)),
        lambda: b.Parallel(c, [inner() for _ in range(pick(1, 2, 3))], dense=pick(True, False)),
        lambda: b.JoinAndSplit(n, inner(), inner()),
        lambda: b.OptionA(n, c, inner(), more=pick(2, 3, c), module=pick(True, False)),
        lambda: b.Twice(n, c, inner()),
        lambda: _chain(inner(), inner),
    ]
    if min(space) >= 8:
        half = tuple(s // 2 for s in space)
        nested.append(
            lambda: b.Scales(
                n, c, inner(c, half), how=pick("transposed", "upsample", "interpolate")
            )
        )
    if c % 2 == 0 and c >= 4:
        nested.append(lambda: b.Halves(n, c, inner(c // 2), how=pick(*b.HALVES)))
    if c > 24:  # concatenations add up
        return _unit(draw, n, c, 6)
    return draw(st.sampled_from(simple + (nested * 3 if depth else [])))()


def _chain(first: b.Block, then: Callable[..., b.Block]) -> b.Block:
    second = then(first.out)
    return b.Chain(first, second, out=second.out)


def _unit(draw: Draw, n: int, c: int, out: int) -> b.Block:
    kind = draw(st.sampled_from(["dense", "grouped", "depthwise"]))
    groups = {"dense": 1, "grouped": _groups(draw, c, out), "depthwise": c}[kind]
    if kind == "depthwise":
        out = c * draw(st.sampled_from([1, 2]))
    return b.ConvUnit(
        n,
        c,
        out,
        kernel=draw(st.sampled_from([1, 3])),
        groups=groups,
        bias=draw(st.booleans()),
        norm=draw(st.sampled_from(list(b.NORMS))),
        activation=draw(st.sampled_from(list(b.ACTIVATIONS))),
    )


def _groups(draw: Draw, c: int, out: int) -> int:
    return draw(st.sampled_from([g for g in (1, 2, 3, 4) if c % g == out % g == 0]))


def _divisors(c: int) -> list[int]:
    return [g for g in (2, 3, 4) if c % g == 0]
