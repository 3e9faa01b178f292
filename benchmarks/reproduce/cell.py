"""One cell: search, recovery, one look at test; the pruned weights are kept for replay.

The search sees search-val only, recovery learns from search-train and is chosen by search-val, and
test is opened once by the network that is stored. Nothing here knows which cells there are.
"""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch
from safetensors.torch import save
from torch import nn

import pruning_env  # noqa: F401  (registers the environments)
from benchmarks.reproduce.cells import Cell
from benchmarks.reproduce.recover import filters_cut, recover, round_to_half
from benchmarks.reproduce.rows import Pruned, ReproduceRow
from benchmarks.smoke import SMOKE_PREFIX, smoke_task
from benchmarks.training.command import weights_path
from pruning_agents.search.judge import judge_dense
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.metrics import Metrics, measure
from pruning_env.evaluation.weights import Weights
from pruning_env.process.dynamics import PruningState
from pruning_env.tasks.data import Splits
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import WEIGHTS_FILE, load_pruned, save_pruned

__all__ = ["RunContext", "replay", "run_cell"]


@dataclass(frozen=True)
class RunContext:
    """What all cells of a run share.

    Attributes:
        device: Of search and recovery.
        data_root: Folder of the data sets; None for the default.
        weights: Folder in which `train` left the dense networks; a task without a file there uses
            its own weights.
        progress: Whether to show bars.
    """

    device: str = "cpu"
    data_root: str | None = None
    weights: Path = Path("runs/train")
    progress: bool = True


def run_cell(cell: Cell, context: RunContext, folder: Path, origin: Provenance) -> ReproduceRow:
    """Search, recover, store, certify.

    Args:
        cell: What to run.
        context: Where.
        folder: For the pruned network, in the form of `save_pruned`.
        origin: Written into the row.

    Raises:
        ValueError: As the environment and the agent.
        FileNotFoundError: Data or dense weights are not there; the message says how to get them.
    """
    settings = _settings(cell, context)
    made = gym.make("CNNPrune-v0", **settings)
    env = made.unwrapped
    assert isinstance(env, CNNPruneEnv)
    begun = time.perf_counter()
    search = get_agent(cell.method).search(made, cell.evaluations, cell.seed, context.progress)
    search_minutes = (time.perf_counter() - begun) / 60
    evaluations = env.evaluations
    dense = judge_dense(env, settings, open_test=True)
    assert dense.test_accuracy is not None
    pruned, failed, minutes = None, "nothing within the budget was found", 0.0
    if search.result is not None:
        begun = time.perf_counter()
        pruned = _finish(cell, context, env, dense.model, search.result.state, folder)
        minutes, failed = (time.perf_counter() - begun) / 60, ""
    made.close()
    return ReproduceRow(
        cell=cell,
        dense_val=dense.val_accuracy,
        dense_test=dense.test_accuracy,
        base_sha256=_sha256(dense.model),
        val_seen=get_task(cell.task).val_seen,
        evaluations=evaluations,
        pruned=pruned,
        failed=failed,
        test_openings=env.evaluator.test_openings,
        search_minutes=search_minutes,
        recovery_minutes=minutes,
        provenance=origin,
    )


def replay(row: ReproduceRow, folder: Path, context: RunContext) -> float:
    """Test accuracy, in [0, 1], of the network that a row's cell stored in `folder`.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is damaged, or not the one of the row.
    """
    assert row.pruned is not None
    if row.cell.task.startswith(SMOKE_PREFIX):
        smoke_task(row.cell.task.removeprefix(SMOKE_PREFIX))
    digest = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    if digest != row.pruned.weights_sha256:
        raise ValueError(f"{folder}: sha256 {digest[:12]}..., the row has another network's")
    model = load_pruned(folder).float().to(context.device)
    splits = get_task(row.cell.task).load_data(context.data_root)
    images = splits.normalised(splits.test, context.device)
    return measure(model, images, splits.test.labels.to(context.device), 128).accuracy


def _settings(cell: Cell, context: RunContext) -> dict[str, Any]:
    trained = weights_path(context.weights, cell.task)
    return {
        "task": cell.task,
        "budget": cell.budget,
        "data_root": context.data_root,
        "device": context.device,
        "weights": str(trained) if trained.is_file() else None,
        **cell.settings,
    }


def _finish(
    cell: Cell,
    context: RunContext,
    env: CNNPruneEnv,
    dense: nn.Module,
    state: PruningState,
    folder: Path,
) -> Pruned:
    """Recover what the search found, store it, and look at test."""
    evaluator, graph = env.evaluator, env.graph
    splits: Splits = get_task(cell.task).load_data(context.data_root)
    images, labels = evaluator.images("search-val")

    def judge(model: nn.Module) -> Metrics:
        return measure(model, images, labels, evaluator.batch_size)

    model = evaluator.pruned_model(state.keep, state.weights)
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True):
        recovered = recover(
            model,
            dense,
            splits,
            cell.recovery,
            judge,
            seed=cell.seed,
            progress=context.progress,
        )
    # What is judged is what is stored, to the bit.
    round_to_half(model)
    after = judge(model)
    test = evaluator.certify(state.keep, Weights(model, state.keep))
    save_pruned(
        folder,
        _in_half(model),
        graph,
        state.keep,
        architecture=cell.task,
        extra={"cell": asdict(cell), "test_accuracy": test.accuracy},
    )
    stored = (folder / WEIGHTS_FILE).read_bytes()
    return Pruned(
        before_val=recovered.before.accuracy,
        val_accuracy=after.accuracy,
        test_accuracy=test.accuracy,
        epoch=recovered.epoch,
        params=int(graph.params(state.keep)),
        params_share=state.params,
        macs=int(graph.macs(state.keep)),
        macs_share=state.macs,
        filters_cut=filters_cut(dense, model),
        counts=tuple(int(count) for count in state.counts),
        weights_sha256=hashlib.sha256(stored).hexdigest(),
        weights_bytes=len(stored),
    )


def _in_half(model: nn.Module) -> nn.Module:
    """A copy whose rounded weights are stored as such; see `round_to_half`."""
    small = copy.deepcopy(model).cpu()
    for parameter in small.parameters():
        if parameter.ndim > 1:
            parameter.data = parameter.data.half()
    return small


def _sha256(model: nn.Module) -> str:
    """Of the file that `python -m benchmarks train` writes for these weights."""
    state = model.state_dict()
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
    return hashlib.sha256(content).hexdigest()
