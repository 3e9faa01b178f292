"""Measure one network of the zoo, alone in its process.

What is found is written to a folder as soon as it is known, our side first, so that a peer that
takes the process down takes nothing else with it.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.zoo import peer
from benchmarks.zoo.catalogue import ZooModel, example_input, zoo_models
from benchmarks.zoo.rows import Measurement, Peer, Timing, to_json
from benchmarks.zoo.timing import interleaved, stopwatch
from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph

OURS, PEER = "ours.json", "peer.json"

#: Probabilities of keeping a channel: half, and one in ten, where errors in order show most.
RATIOS = (0.5, 0.1)

#: Above this many parameters, two models in double precision are too much for a small machine.
FLOAT64_LIMIT = 300_000_000

#: Processor seconds to spend on timing one function, after the first call.
TIMING_SECONDS = 20.0


@dataclass(frozen=True)
class Job:
    """What a worker is to do.

    Attributes:
        model: name of the network.
        folder: where to write.
        log: file for everything printed.
        seed: of weights, inputs and masks.
        threads: of torch.
        repetitions: of each timing.
        peers: measure Torch-Pruning, too.
    """

    model: str
    folder: Path
    log: Path
    seed: int
    threads: int
    repetitions: int
    peers: bool


def work(job: Job) -> None:
    """Measure one network; to be called in a process of its own."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    with job.log.open("wb") as stream:
        for printed in (1, 2):
            os.dup2(stream.fileno(), printed)
    torch.set_num_threads(job.threads)
    entry = zoo_models()[job.model]
    torch.manual_seed(job.seed)  # modules draw their weights from the global generator
    model = entry.build().eval()
    jitter(model, job.seed)
    _warm_up()
    inputs = example_input(entry, 1, job.seed)
    graphs: list[ChannelGraph] = []
    traced = stopwatch(lambda: graphs.append(ChannelGraph.trace(model, inputs)))
    graph = graphs.pop()
    ours = measure(entry, model, graph, Timing(*traced, 1), job.seed, job.repetitions)
    atomic_write(job.folder / OURS, to_json(ours))
    if job.peers:
        result = measure_peer(entry, model, graph, job.seed, job.repetitions)
        atomic_write(job.folder / PEER, to_json(result))


def _die_with_parent() -> None:
    """End this process when the one that watches it is gone: nobody would stop it then."""
    watcher = multiprocessing.parent_process()
    assert watcher is not None
    multiprocessing.connection.wait([watcher.sentinel])
    os._exit(1)


def jitter(model: nn.Module, seed: int) -> None:
    """Put noise on constant tensors.

    Fresh norms (weight 1, bias 0) and zero heads would hide channels in the wrong order.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            constant = tensor.dim() <= 1 or bool((tensor == tensor.flatten()[:1]).all())
            if tensor.is_floating_point() and constant:
                noise = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(tensor * (0.75 + 0.5 * noise) + 0.05 * noise)


def _warm_up() -> None:
    """Let the first export of a process pay for its imports here."""
    tiny = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).eval()
    ChannelGraph.trace(tiny, torch.zeros(1, 3, 4, 4))


def measure(
    entry: ZooModel,
    model: nn.Module,
    graph: ChannelGraph,
    trace: Timing,
    seed: int,
    repetitions: int,
) -> Measurement:
    """Everything about our side of the row but the trace, which has been timed already."""
    rng = np.random.default_rng(seed)
    (prune,) = interleaved(
        [lambda: graph.prune(model, graph.random_keep(RATIOS[0], rng))],
        repetitions,
        TIMING_SECONDS,
    )
    keeps = [graph.random_keep(ratio, rng) for ratio in RATIOS]
    params, macs = int(graph.params(graph.full())), int(graph.macs(graph.full()))
    params_counted = macs_counted = True
    for keep in keeps:
        pruned = graph.prune(model, keep)
        params_counted &= graph.params(keep) == peer.parameters_of(pruned)
        macs_counted &= 2 * graph.macs(keep) == _flops(pruned, example_input(entry, 1, seed))
    trains = trains_a_step(graph.prune(model, keeps[0]), example_input(entry, 2, seed))
    double = entry.double and params <= FLOAT64_LIMIT
    dtype = torch.float64 if double else torch.float32
    model.to(dtype)
    comparisons = [_compare(model, graph, keep, entry, seed, dtype) for keep in keeps]
    model.to(torch.float32)  # the way there and back is exact
    return Measurement(
        groups=len(graph.groups),
        channels=graph.num_channels,
        frozen=graph.frozen,
        params=params,
        macs=macs,
        prunable_share=1 - float(graph.params_at(np.ones_like(graph.sizes))) / params,
        stays=staying(model, graph),
        trace=trace,
        prune=prune,
        params_left=float(graph.params(keeps[0])) / params,
        macs_left=float(graph.macs(keeps[0])) / macs,
        ratios=RATIOS,
        dtype=str(dtype).removeprefix("torch."),
        error=_worst([each.error for each in comparisons]),
        rounding=_worst([each.rounding for each in comparisons]),
        effect=min(each.effect for each in comparisons),
        signal=min(each.signal for each in comparisons),
        params_counted=bool(params_counted),
        macs_counted=bool(macs_counted),
        trains=trains,
    )


def staying(model: nn.Module, graph: ChannelGraph) -> dict[str, float]:
    """Share of the parameters that stay when every group is cut to one channel, by reason.

    A layer whose outputs are free still has one row, as wide as what stays of its input.
    """
    first = np.zeros(graph.num_channels, bool)
    first[[group.start for group in graph.groups]] = True
    shares: dict[str, float] = {}
    whole = peer.parameters_of(model)
    for name, parameter in graph.prune(model, first).named_parameters():
        reason = graph.frozen.get(name.rpartition(".")[0]) or graph.frozen.get(name)
        kind = _kind(reason or "inputs of what stays")
        shares[kind] = shares.get(kind, 0.0) + parameter.numel() / whole
    return dict(sorted(shares.items(), key=lambda each: -each[1]))


def _kind(reason: str) -> str:
    """A reason without numbers of channels and names of modules: the same for repeated layers."""
    reason = re.sub(r"^\d+ of \d+ channels: ", "", reason)
    return re.sub(r" in (the model|[\w.]*\.\w+|\w+)(?= |,|\)|$)", "", reason)


def _flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    # With gradients: without them attention takes a fused path that the counter does not see; and
    # without oneDNN, whose kernel of a recurrent layer it does not see either.
    with torch.backends.mkldnn.flags(enabled=False), FlopCounterMode(display=False) as counter:
        model(*inputs)
    return counter.get_total_flops()


def trains_a_step(model: nn.Module, inputs: tuple[Tensor, ...]) -> str:
    """The error that forward and backward in train mode end with, or ""."""
    try:
        outputs = [leaf for leaf in leaves(model.train()(*inputs)) if leaf.is_floating_point()]
        loss = torch.stack([leaf.square().mean() for leaf in outputs]).sum()
        loss.backward()
    except Exception as error:  # every way to fail is a result
        return peer.one_line(error)
    if not torch.isfinite(loss):
        return f"the loss is {float(loss.detach())}"
    used = [p.grad for p in model.parameters() if p.grad is not None]
    if not used:
        return "no parameter has a gradient"
    wrong = sum(not bool(torch.isfinite(gradient).all()) for gradient in used)
    return f"{wrong} gradients are not finite" if wrong else ""


@dataclass(frozen=True)
class _Comparison:
    """`error`, `rounding`, `effect` and `signal` of one mask, as in `Measurement`."""

    error: float
    rounding: float
    effect: float
    signal: float


@torch.no_grad()
def _compare(
    model: nn.Module,
    graph: ChannelGraph,
    keep: NDArray[np.bool_],
    entry: ZooModel,
    seed: int,
    dtype: torch.dtype,
) -> _Comparison:
    """Compare the pruned with the masked and the masked with the dense model."""
    keep_signals_alive(model, graph, keep, example_input(entry, 2, seed, dtype))
    one, other = (example_input(entry, 1, each, dtype) for each in (seed, seed + 1))
    small = graph.prune(model, keep)
    pruned = leaves(small(*one))
    signal = difference(leaves(small(*other)), pruned)
    del small
    twin = graph.mask(model, keep)
    masked = leaves(twin(*one))
    rounded = tuple(x * (1 + 2 * torch.finfo(x.dtype).eps) for x in one)
    return _Comparison(
        difference(pruned, masked),
        difference(leaves(twin(*rounded)), masked),
        difference(masked, leaves(model(*one))),
        signal,
    )


def keep_signals_alive(
    model: nn.Module, graph: ChannelGraph, keep: NDArray[np.bool_], inputs: tuple[Tensor, ...]
) -> None:
    """Scale the weights of `model`, and set its batch norms' statistics, for life under a mask.

    With those of the dense network, what a deep network that has lost nine channels in ten knows of
    its input fades from layer to layer, and a wrong channel in it would not show. Run once, the
    masked model tells which factors give every layer's products unit variance, and which rows to
    turn round lest nothing of them passes a ReLU. Modules that it runs cut to the mask stay as they
    are.
    """
    masked, whole = graph.mask(model, keep), dict(model.named_modules())
    norms: dict[str, nn.Module] = {}
    factors: dict[str, Tensor] = {}

    def enliven(name: str, module: Any, _: object, output: Tensor) -> Tensor:
        dim = output.dim() - 1 if isinstance(module, nn.Linear) else 1
        others = [d for d in range(output.dim()) if d != dim]
        bias = 0.0
        if module.bias is not None:
            bias = module.bias.view([-1 if d == dim else 1 for d in range(output.dim())])
        products = output - bias
        factor = 1 / products.std().clamp_min(1e-12)
        if not getattr(module, "transposed", False):  # there, rows of the weight are inputs
            dead = (products <= 0).all(dim=others[0], keepdim=True)
            for d in others[1:]:
                dead = dead.all(dim=d, keepdim=True)
            factor = torch.where(dead, -factor, factor)
            rows = factor.flatten()
            factors[name] = rows.view(-1, *[1] * (module.weight.dim() - 1))
        else:
            factors[name] = factor
        return products * factor + bias

    for name, module in masked.named_modules():
        if name not in whole:
            continue
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            module.register_forward_hook(partial(enliven, name))
        elif isinstance(module, nn.modules.batchnorm._BatchNorm):
            norms[name] = module.train()
            module.momentum = 1.0
    masked(*inputs)
    for name, factor in factors.items():
        model.get_parameter(f"{name}.weight").mul_(factor)
    for name, norm in norms.items():
        model.get_submodule(name).load_state_dict(norm.state_dict())


def difference(given: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference over all outputs, each relative to its largest value.

    NaN when shapes differ or values are not finite.
    """
    if len(given) != len(expected):
        return float("nan")
    return _worst(map(_relative, given, expected))


def _relative(given: Tensor, expected: Tensor) -> float:
    if given.shape != expected.shape:
        return float("nan")
    off = (given.double() - expected.double()).abs().max()
    return float(off / expected.double().abs().max()) if off != 0 else 0.0


def _worst(values: Iterable[float]) -> float:
    return float(np.max([0.0, *values]))  # unlike max(), this passes NaN on


def leaves(output: object) -> list[Tensor]:
    """Every tensor of a nested output, in order."""
    if isinstance(output, Tensor):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (tuple, list)):
        return [leaf for item in output for leaf in leaves(item)]
    return []


def measure_peer(
    entry: ZooModel, model: nn.Module, graph: ChannelGraph, seed: int, repetitions: int
) -> Peer:
    """Torch-Pruning on the same model, in turns with us."""
    version = peer.peer_version()
    assert version is not None
    inputs, rng = example_input(entry, 1, seed), np.random.default_rng(seed)
    make = peer.peer_pruner(graph, model, inputs)
    try:
        candidate = make()
    except Exception as error:
        return Peer(version, peer.one_line(error), None, None, None)
    left = peer.parameters_of(candidate) / peer.parameters_of(model)
    if left == 1:
        failure = "nothing was pruned"
    elif trouble := peer.runs(candidate, inputs):
        failure = f"eval: {trouble}"
    elif trouble := trains_a_step(candidate, example_input(entry, 2, seed)):
        failure = f"train: {trouble}"
    else:
        failure = ""
    del candidate
    ours, theirs = interleaved(
        [lambda: graph.prune(model, graph.random_keep(RATIOS[0], rng)), make],
        repetitions,
        TIMING_SECONDS,
    )
    return Peer(version, failure, theirs, ours, left)
