"""Thousands of candidates are made and dropped: nothing of one may stay alive."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pruning_env  # noqa: F401  (registers the environments)
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.models import CifarResNet
from tests.helpers.paths import ROOT
from tests.helpers.small import SmallNet, small_evaluator

Case = tuple[nn.Module, Tensor, ChannelGraph]


class Normalised(nn.Module):
    """Norms whose masked twins are wrapped, and a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 4)
        self.last = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.norm(self.stem(x)).relu()).relu()
        return self.head(self.last(x.mean((2, 3))))


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "residual": (SmallNet, (2, 1, 8, 8)),
    "islands": (lambda: CifarResNet(8, shortcut="A"), (2, 3, 16, 16)),
    "norms": (Normalised, (2, 3, 8, 8)),
}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest) -> Case:
    build, shape = NETWORKS[request.param]
    model, example = build().eval(), torch.randn(shape)
    return model, example, ChannelGraph.trace(model, example)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What dies here dies of its reference count: a cycle would keep it."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _watch(model: nn.Module) -> list[weakref.ref[object]]:
    return [weakref.ref(each) for each in (*model.modules(), *model.parameters(), *model.buffers())]


def _alive(references: list[weakref.ref[object]]) -> list[str]:
    return [type(each()).__name__ for each in references if each() is not None]


@pytest.mark.parametrize("surgery", ["prune", "mask"])
def test_a_dropped_candidate_dies_at_once(case: Case, surgery: str, no_collector: None) -> None:
    model, _, graph = case
    keep = graph.random_keep(0.5, np.random.default_rng(0))
    candidate = getattr(graph, surgery)(model, keep)
    references = _watch(candidate)
    assert len(_alive(references)) == len(references) > 0
    del candidate
    assert _alive(references) == []


def test_a_trained_and_dropped_candidate_dies_at_once(case: Case, no_collector: None) -> None:
    model, example, graph = case
    candidate = graph.prune(model, graph.random_keep(0.5, np.random.default_rng(0))).train()
    optimiser = torch.optim.SGD(candidate.parameters(), lr=0.1, momentum=0.9)
    candidate(example).square().mean().backward()
    optimiser.step()
    references = _watch(candidate)
    del candidate, optimiser
    assert _alive(references) == []


def test_a_graph_does_not_keep_its_model_alive() -> None:
    model = SmallNet().eval()
    graph = ChannelGraph.trace(model, torch.randn(1, 1, 8, 8))
    references = _watch(model)
    del model
    gc.collect()  # torch.export leaves cycles behind
    assert _alive(references) == []
    assert graph.num_channels > 0


def test_a_dropped_graph_dies_at_once(case: Case, no_collector: None) -> None:
    model, example, _ = case
    graph = ChannelGraph.trace(model, example)
    graph.prune(model, graph.random_keep(0.5, np.random.default_rng(0)))
    graph.params(graph.full())
    assert graph.fingerprint
    reference = weakref.ref(graph)
    del graph
    assert reference() is None


def _peak_mib() -> float:
    """Largest resident memory so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def test_memory_does_not_grow_over_hundreds_of_candidates(no_collector: None) -> None:
    model, example = CifarResNet(8).eval(), torch.randn(2, 3, 16, 16)
    graph, rng = ChannelGraph.trace(model, example), np.random.default_rng(0)
    gc.collect()

    def candidates(count: int) -> None:
        with torch.inference_mode():
            for _ in range(count):
                graph.prune(model, graph.random_keep(0.5, rng))(example)

    candidates(100)  # the C allocator's pools fill up
    tracemalloc.start()
    try:
        candidates(20)  # what Python allocates once
        objects, peak = tracemalloc.get_traced_memory()[0], _peak_mib()
        candidates(300)
        grown = tracemalloc.get_traced_memory()[0] - objects
        swollen = _peak_mib() - peak
    finally:
        tracemalloc.stop()
    # A candidate has some 100 kB of weights and 100 kB of Python objects; leaks of three hundred
    # would come to 30 MB each.
    assert grown < 100_000, f"{grown:,} bytes of Python objects"
    assert swollen < 20, f"{swollen:.1f} MiB of memory"


def test_an_evaluator_keeps_results_and_no_models(no_collector: None) -> None:
    evaluator = small_evaluator(cache_size=64)
    rng = np.random.default_rng(0)

    def live_modules() -> int:
        # By type: some objects of torch warn when they are asked what they are an instance of.
        return sum(issubclass(type(each), nn.Module) for each in gc.get_objects())

    def evaluate(count: int) -> None:
        for _ in range(count):
            evaluator.evaluate(evaluator.graph.random_keep(0.5, rng))

    evaluate(5)
    before = live_modules()
    evaluate(100)
    assert evaluator.evaluations > 50
    assert live_modules() == before


def test_memory_does_not_grow_over_cached_and_fresh_evaluations(no_collector: None) -> None:
    evaluator = small_evaluator(cache_size=64)
    rng = np.random.default_rng(0)
    seen = [evaluator.graph.random_keep(0.5, rng) for _ in range(32)]

    def evaluate(fresh: int, cached: int) -> None:
        for _ in range(fresh):
            evaluator.evaluate(evaluator.graph.random_keep(0.5, rng))
        evaluator.evaluate_many(seen)
        for number in range(cached):
            evaluator.evaluate(seen[number % len(seen)])

    evaluate(70, 70)  # pools and the cache fill up
    tracemalloc.start()
    try:
        evaluate(20, 100)
        objects, peak = tracemalloc.get_traced_memory()[0], _peak_mib()
        evaluate(200, 3_000)
        grown = tracemalloc.get_traced_memory()[0] - objects
        swollen = _peak_mib() - peak
    finally:
        tracemalloc.stop()
    assert grown < 100_000, f"{grown:,} bytes of Python objects"
    assert swollen < 40, f"{swollen:.1f} MiB of memory"


_MANY = """
import gc, sys
import numpy as np, torch
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.tasks.data import Split, Splits
from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.tasks.models import CifarResNet
from tests.graph.test_memory import reset_peak, status_mib

model = CifarResNet(20).eval()
graph = ChannelGraph.trace(model, torch.zeros(1, 3, 32, 32))
rng = np.random.default_rng(0)
pixels = torch.randint(0, 256, (128, 3, 32, 32), dtype=torch.uint8)
images = Split(pixels, torch.arange(128) % 10)
splits = Splits(images, images, images, (0.5,) * 3, (0.25,) * 3, 10)
evaluator = Evaluator(model, graph, splits, recovery="bn", recovery_images=128)

def needs(count):
    keeps = [graph.random_keep(0.5, rng) for _ in range(count)]
    gc.collect()
    before = status_mib("VmRSS")
    reset_peak()
    evaluator.evaluate_many(keeps)
    return status_mib("VmHWM") - before

needs(2)  # thread stacks and the like
print(needs(1), needs(64))
"""


def reset_peak() -> None:
    """Linux forgets the largest resident memory so far."""
    Path("/proc/self/clear_refs").write_text("5")


def status_mib(key: str) -> float:
    """`VmHWM`, the largest since the last reset, or `VmRSS`, what is resident now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 2**10
    raise AssertionError(f"no {key}")


@pytest.mark.slow  # half a minute, and fewer images would not tell a batch from a candidate
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux counts memory so")
def test_many_candidates_need_little_more_memory_than_one() -> None:
    # glibc gives back at once what is larger than the threshold, so that what is resident is what
    # is alive.
    run = subprocess.run(
        [sys.executable, "-c", _MANY],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "16384"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    one, many = map(float, run.stdout.split())
    # 64 pruned copies of the weights alone would be 8 MiB; activations would be 64 times those.
    # Some MiB are kernels that oneDNN compiles for each shape and keeps.
    assert many < 2 * one + 8, f"{many:.1f} MiB for 64, {one:.1f} for one"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux counts memory so")
def test_memory_does_not_grow_over_ten_thousand_steps() -> None:
    env = gym.make("CNNPrune-v0", recovery="none")  # the quickest: what leaks, leaks here, too
    rng = np.random.default_rng(0)

    def steps(count: int) -> float:
        env.reset()
        for _ in range(count):
            _, _, terminated, _, _ = env.step(rng.uniform(-1, 1, env.action_space.shape))
            if terminated:
                env.reset()
        gc.collect()
        return status_mib("VmRSS")

    before = steps(5_000)  # the cache fills up
    grown = steps(10_000) - before
    assert grown < 20, f"{grown:.1f} MiB over 10,000 steps"
