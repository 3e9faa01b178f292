"""A small network and a few random images: everything real, nothing slow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pruning_env.evaluation.evaluator import Evaluator
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.actions import DistributionAction
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningDynamics
from pruning_env.tasks.data import Split, Splits


class SmallNet(nn.Module):
    """A stem and a skip connection that share channels, an inner layer, and a strided one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(6, 10, 3, padding=1), nn.BatchNorm2d(10), nn.ReLU())
        self.outer = nn.Sequential(nn.Conv2d(10, 6, 1), nn.BatchNorm2d(6))
        self.down = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.down(torch.relu(x + self.outer(self.inner(x))))
        return self.head(x.mean((2, 3)))


def small_model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return SmallNet().eval()


def small_splits() -> Splits:
    generator = torch.Generator().manual_seed(4)

    def split(count: int) -> Split:
        images = torch.randn((count, 1, 8, 8), generator=generator)
        return Split(images, torch.randint(0, 4, (count,), generator=generator))

    return Splits(split(64), split(50), split(40), (0.0,), (1.0,), 4)


def small_evaluator(**options: Any) -> Evaluator:
    model = small_model()
    graph = ChannelGraph.trace(model, torch.zeros(1, 1, 8, 8))
    return Evaluator(model, graph, small_splits(), **options)


def small_dynamics(
    evaluator: Evaluator | None = None,
    budget: dict[str, float] | None = None,
    logit_scale: float = 3.0,
    **options: Any,
) -> PruningDynamics:
    evaluator = evaluator or small_evaluator()
    graph = evaluator.graph
    action = DistributionAction(graph.sizes, logit_scale)
    return PruningDynamics(graph, evaluator, parse_budget(budget), action, **options)


def count_calls(monkeypatch: pytest.MonkeyPatch, evaluator: Evaluator) -> list[int]:
    """A list that grows by the number of masks at every call of `evaluate_many`."""
    calls: list[int] = []
    original = evaluator.evaluate_many

    def counted(keeps: Any, *rest: Any) -> Any:
        calls.append(len(keeps))
        return original(keeps, *rest)

    monkeypatch.setattr(evaluator, "evaluate_many", counted)
    return calls
