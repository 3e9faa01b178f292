"""A pruning environment whose optimum is known: accuracy is a formula of what each group keeps.

Graph, budgets, actions, observations and dynamics are the real ones; only the images are replaced,
by an evaluator that charges each group a price for the share of its channels that is gone. With one
free group the best distribution takes everything from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from pruning_env.evaluation.evaluator import Metrics, Recovered
from pruning_env.evaluation.weights import Weights
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.actions import make_action
from pruning_env.process.budgets import parse_budget
from pruning_env.process.dynamics import PruningDynamics, PruningState, Transition
from pruning_env.process.observations import make_observation

WIDTH = 12
PRICES = (0.3, 0.3, 0.0, 0.3)
FREE_GROUP = 2


class PriceList:
    """An evaluator without images: accuracy = 1 - sum of price · share removed."""

    trains = trains_commits = False
    race = None

    def __init__(self, graph: ChannelGraph, prices: Sequence[float]) -> None:
        self.graph = graph
        self.prices = np.asarray(prices)
        self.evaluations = 0
        self._known: dict[bytes, Metrics] = {}
        self.dense = Metrics(accuracy=1.0, loss=0.0)

    def evaluate(self, keep: np.ndarray) -> Metrics:
        return self.evaluate_many([keep])[0]

    def evaluate_many(self, keeps: Sequence[np.ndarray]) -> list[Metrics]:
        for keep in keeps:
            if keep.tobytes() not in self._known:
                self.evaluations += 1
                (self._known[keep.tobytes()],) = self.rehearse_many([keep])
        return [self._known[keep.tobytes()] for keep in keeps]

    def rehearse_many(self, keeps: Sequence[np.ndarray]) -> list[Metrics]:
        losses = [self.prices @ (1 - self.graph.counts(keep) / self.graph.sizes) for keep in keeps]
        return [Metrics(accuracy=1 - float(loss), loss=float(loss)) for loss in losses]

    def recover_many(
        self, keeps: Sequence[np.ndarray], starts: Sequence[Weights | None]
    ) -> list[Recovered]:
        return [Recovered(metrics, None) for metrics in self.evaluate_many(keeps)]

    def scores(self, kind: str, rng: np.random.Generator | None = None) -> np.ndarray:
        return np.arange(self.graph.num_channels, dtype=np.float64)


def trace_chain(groups: int = len(PRICES)) -> ChannelGraph:
    """A chain of equally wide convolutions; slow enough to be shared between tests."""
    layers: list[nn.Module] = [nn.Conv2d(1, WIDTH, 3, padding=1), nn.ReLU()]
    for _ in range(groups - 1):
        layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3))
    return ChannelGraph.trace(model.eval(), torch.zeros(1, 1, 4, 4))


class KnownOptimumEnv(gym.Env):
    """The smallest environment that offers what the agents use."""

    def __init__(
        self,
        graph: ChannelGraph,
        prices: Sequence[float] = PRICES,
        limit: float = 0.75,
        logit_scale: float = 3.0,
    ) -> None:
        self.graph = graph
        self.evaluator = PriceList(graph, prices)
        self.dynamics = PruningDynamics(
            graph,
            self.evaluator,  # type: ignore[arg-type]
            parse_budget({"params": limit}),
            make_action("distribution", graph.sizes, logit_scale),
            channels_per_step=0.1,
        )
        self.action_space = self.dynamics.action.space()
        self._observe = make_observation(
            "flat",
            graph,
            self.dynamics.budgets,
            self.dynamics.sensitivity.by_default,
            self.dynamics.units.floors,
        )
        self.observation_space = self._observe.space()
        self._state = self.dynamics.initial()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self.dynamics.initial()
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        transition = self.dynamics.transition(self._state, action)
        self._state = transition.state
        info = {
            "accuracy": self._state.latest.accuracy,
            "is_success": self.dynamics.feasible(self._state),
        }
        return self._observation(), transition.reward, transition.terminated, False, info

    @property
    def evaluations(self) -> int:
        return self.evaluator.evaluations

    def _observation(self) -> np.ndarray:
        return self._observe.observe(self._state)

    def state(self) -> PruningState:
        return self._state

    def transition(self, state: PruningState, action: np.ndarray) -> Transition:
        return self.dynamics.transition(state, action)
