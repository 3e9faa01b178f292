"""A compiled forward pass: what slicing gives, compiled once, and nothing left in the weights."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest
import torch

from pruning_env.evaluation.compiled import Compiled
from pruning_env.evaluation.metrics import BatchSize
from pruning_env.evaluation.planning import Plan
from pruning_env.evaluation.recovery.batch_norm import leave_as_is, recalibrate_batch_norm
from pruning_env.evaluation.recovery.reconstruction import Reconstruction
from pruning_env.evaluation.strategies import Sliced, measure_all
from tests.helpers.networks import jitter
from tests.helpers.small import small_evaluator, small_model

pytestmark = pytest.mark.skipif(
    shutil.which("g++") is None and shutil.which("clang++") is None,
    reason="torch.compile needs a C++ compiler",
)

IMAGES = torch.randn(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(50) % 4


@pytest.mark.slow  # inductor takes its time
@pytest.mark.parametrize(
    ("recover", "refits"),
    [(leave_as_is, False), (recalibrate_batch_norm, False), (leave_as_is, True)],
)
def test_one_compilation_judges_all_candidates_as_slicing_does(recover: Any, refits: bool) -> None:
    graph, model = small_evaluator().graph, small_model()
    jitter(model)
    refit = Reconstruction(graph, model, IMAGES[:20]) if refits else None
    compiled, sliced = (
        kind(graph, model, recover, IMAGES[:20], refit) for kind in (Compiled, Sliced)
    )
    rng = np.random.default_rng(0)
    keeps = [graph.random_keep(share, rng) for share in (0.9, 0.3, 0.6, 0.9)]

    def judged(strategy: Compiled | Sliced, keeps: list[Any]) -> list[Any]:
        # 24, 24 and 2 images: a batch of another size comes last.
        return measure_all(strategy, keeps, IMAGES, LABELS, BatchSize(24))

    first = judged(compiled, keeps[:1])
    with torch.compiler.set_stance("fail_on_recompile"):
        rest = judged(compiled, keeps[1:])
    expected = judged(sliced, keeps)
    for ours, theirs in zip(first + rest, expected, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-4)
        assert ours.accuracy == pytest.approx(theirs.accuracy, abs=1 / 50 + 1e-9)
    assert len({metrics.loss for metrics in expected}) == len(keeps)
    with compiled.network(keeps[0]) as candidate:
        pass
    for name, tensor in candidate.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_what_was_returned_is_not_overwritten_by_the_next_batch(monkeypatch: Any) -> None:
    graph, model = small_evaluator().graph, small_model()
    compiled = Compiled(graph, model, leave_as_is, IMAGES[:2])
    replayed = torch.empty(24, 4)  # a CUDA graph returns the same memory every time
    monkeypatch.setattr(compiled, "_forward", lambda images: replayed.copy_(model(images)))
    with compiled.running([graph.full()]) as outputs, torch.inference_mode():
        first = outputs(IMAGES[:24])
        outputs(IMAGES[24:48])
        assert torch.equal(first[0], model(IMAGES[:24]))


def test_an_evaluator_compiles_only_when_told_to() -> None:
    assert small_evaluator(strategy="auto").plan.strategy == "sliced"
    told = small_evaluator(strategy="compiled", batch_size=25)
    assert told.plan == Plan("compiled", 25)
    keep = told.graph.random_keep(0.5, np.random.default_rng(1))
    cut = small_evaluator(strategy="sliced", batch_size=25).evaluate(keep)
    assert told.evaluate(keep).loss == pytest.approx(cut.loss, rel=1e-4)
    assert small_evaluator(strategy="compiled", recovery="finetune").plan.strategy == "sliced"
