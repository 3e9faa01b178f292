"""The last look at a result: test accuracy, size and measured latency, as a row.

This is where a finished search may open the test split, once, through the evaluator, which counts
it. Nothing in here feeds back into a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import gymnasium as gym
import torch
from torch import nn

from pruning_agents.search.result import SearchResult
from pruning_agents.search.rows import Provenance, ResultRow
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.latency import LatencyRatio, latency_ratio
from pruning_env.evaluation.runtimes import Runtime
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks.registry import get_task


@dataclass(frozen=True)
class Dense:
    """The unpruned model of an environment and what it scores, judged once for all comparisons.

    Attributes:
        model: in eval mode, on the environment's device.
        val_accuracy: on search-val, in [0, 1].
        test_accuracy: on test, in [0, 1]; None when test was not opened.
    """

    model: nn.Module
    val_accuracy: float
    test_accuracy: float | None


def with_networks(env: gym.Env, settings: dict[str, Any]) -> tuple[CNNPruneEnv, dict[str, Any]]:
    """The environment itself and what it was made with; of a tabular one, the network behind it.

    A table knows accuracies and has no networks. The real environment with its `round_to` has the
    same states, and judges them alike.
    """
    unwrapped = env.unwrapped
    assert isinstance(unwrapped, CNNPruneEnv)
    if not isinstance(unwrapped, CNNPruneTabularEnv):
        return unwrapped, settings
    table = unwrapped.table
    behind = {**settings, "task": table.provenance["task"], "round_to": table.round_to}
    real = gym.make("CNNPrune-v0", **behind).unwrapped
    assert isinstance(real, CNNPruneEnv)
    return real, behind


def judge_dense(env: CNNPruneEnv, settings: Mapping[str, Any], *, open_test: bool) -> Dense:
    """Judge the unpruned model of `env`, which was made with `settings`; nothing is recovered.

    With `open_test` the evaluator opens its test split once, and counts it.
    """
    task = get_task(settings["task"])
    model = task.model(settings.get("weights"), settings.get("data_root")).to(env.evaluator.device)
    test_accuracy = env.evaluator.certify_dense().accuracy if open_test else None
    return Dense(model, env.evaluator.dense.accuracy, test_accuracy)


def judge(
    env: CNNPruneEnv,
    result: SearchResult,
    dense: Dense,
    *,
    settings: Mapping[str, Any],
    seed: int,
    wall_seconds: float,
    provenance: Provenance,
    open_test: bool,
    allowed: int | None = None,
    ended: str = "",
) -> ResultRow:
    """Describe a result as a row; with `open_test`, open the test split once for it.

    Args:
        env: the environment that was searched.
        result: its incumbent.
        dense: from `judge_dense`, of the same task.
        settings: keyword arguments that `env` was made with, "task" among them.
        seed: of the search.
        wall_seconds: that the search took.
        provenance: of this process.
        open_test: whether to measure test accuracy.
        allowed: evaluations that the search might spend; None if there was no limit.
        ended: why the search ended, of `ENDINGS`; "" where nobody says.
    """
    state, evaluator, graph = result.state, env.evaluator, env.graph
    image_passes = evaluator.image_passes  # before the judge adds its own
    unpruned = bool(state.keep.all())
    model = dense.model if unpruned else evaluator.pruned_model(state.keep, state.weights)
    test_accuracy = dense.test_accuracy if unpruned else None
    if open_test and not unpruned:
        test_accuracy = evaluator.certify(state.keep, state.weights).accuracy
    meter = env.dynamics.usage_meter
    images = evaluator.images("search-val")[0]
    latency = time_both(dense.model, None if unpruned else model, images, meter.latency.runtime)
    apart = ("task", "budget", "weights", "data_root", "device")
    return ResultRow(
        agent=result.agent,
        task=settings["task"],
        seed=seed,
        budget={budget.name: budget.limit for budget in env.dynamics.budgets},
        settings={key: value for key, value in settings.items() if key not in apart},
        evaluations=result.evaluations,
        history=result.history,
        groups=tuple(group.name for group in graph.groups),
        sizes=tuple(int(size) for size in graph.sizes),
        counts=tuple(int(count) for count in state.counts),
        val_accuracy=result.accuracy,
        dense_val_accuracy=dense.val_accuracy,
        val_seen=get_task(settings["task"]).val_seen,
        test_accuracy=test_accuracy,
        dense_test_accuracy=dense.test_accuracy,
        params=int(graph.params(state.keep)),
        params_ratio=state.params,
        macs=int(graph.macs(state.keep)),
        macs_ratio=state.macs,
        latency_ms=1e3 * latency.seconds,
        dense_latency_ms=1e3 * latency.dense_seconds,
        latency_ratio=latency.seconds / latency.dense_seconds,
        latency_batch=meter.latency.runtime.batch,
        wall_seconds=wall_seconds,
        provenance=provenance,
        image_passes=image_passes,
        allowed=allowed,
        ended=ended or None,
        latency_runtime=meter.latency.runtime.name,
        latency_threads=meter.latency.runtime.threads or torch.get_num_threads(),
        latency_rounds=latency.rounds,
        latency_interval=None if unpruned else (latency.low, latency.high),
        latency_predicted=None if meter.table is None else float(meter.table.ratio(state.counts)),
    )


def time_both(
    dense: nn.Module, pruned: nn.Module | None, images: torch.Tensor, runtime: Runtime
) -> LatencyRatio:
    """The times of both networks in a runtime; without a pruned one, the dense one's and 1."""
    if pruned is None:
        with runtime.ready([dense], images) as ((whole,), batch):
            twice = latency_ratio(whole, whole, batch)
        return replace(twice, low=1.0, high=1.0, seconds=twice.dense_seconds)
    with runtime.ready([dense, pruned], images) as ((whole, part), batch):
        return latency_ratio(whole, part, batch)
