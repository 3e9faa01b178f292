"""One cell: search, recovery, one look at test; the pruned weights are kept for replay.

The search sees search-val only, recovery learns from search-train and is chosen by search-val, and
test is opened once by the network that is stored. Nothing here knows which cells there are.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save
from torch import nn

import pruning_env  # noqa: F401  (registers the environments)
from benchmarks.reproduce.recover import draw_anew, filters_cut, recover, round_to_half
from benchmarks.reproduce.rows import Pruned, ReproduceRow
from benchmarks.reproduce.specification import Cell
from benchmarks.smoke import SMOKE_PREFIX, smoke_task
from benchmarks.training.command import weights_path
from pruning_agents.search.judge import judge_dense
from pruning_agents.search.registry import get_agent
from pruning_agents.search.rows import Provenance
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.evaluation.metrics import Metrics, measure
from pruning_env.evaluation.weights import Weights
from pruning_env.tasks.data import Splits
from pruning_env.tasks.registry import get_task
from pruning_env.tasks.storage import WEIGHTS_FILE, load_pruned, read_recipe, save_pruned

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
    # Beside the folder, since that appears when all is done.
    draft = folder.with_name(f"{folder.name}.searched")
    found = _read_draft(draft, cell)
    if found is None:
        found = _search(cell, context, made, draft)
    dense = judge_dense(env, settings, open_test=True)
    assert dense.test_accuracy is not None
    pruned, failed, minutes = None, "nothing within the budget was found", 0.0
    if found.model is not None:
        begun = time.perf_counter()
        pruned = _finish(cell, context, env, dense.model, found.model, found.keep, folder)
        minutes, failed = (time.perf_counter() - begun) / 60, ""
    made.close()
    return ReproduceRow(
        cell=cell,
        dense_val=dense.val_accuracy,
        dense_test=dense.test_accuracy,
        base_sha256=_sha256(dense.model),
        val_seen=get_task(cell.task).val_seen,
        evaluations=found.evaluations,
        pruned=pruned,
        failed=failed,
        test_openings=env.evaluator.test_openings,
        search_minutes=found.minutes,
        recovery_minutes=minutes,
        provenance=origin,
    )


@dataclass(frozen=True)
class _Found:
    """What a search ends with; no model where nothing met the budget."""

    model: nn.Module | None
    keep: NDArray[np.bool_]
    evaluations: int
    minutes: float


def _search(cell: Cell, context: RunContext, made: gym.Env, draft: Path) -> _Found:
    """Search, and keep what was found until the cell is done, so that a kill costs no search."""
    env = made.unwrapped
    assert isinstance(env, CNNPruneEnv)
    begun = time.perf_counter()
    result = (
        get_agent(cell.method).search(made, cell.evaluations, cell.seed, context.progress).result
    )
    minutes = (time.perf_counter() - begun) / 60
    if result is None:
        return _Found(None, env.graph.full(), env.evaluations, minutes)
    state = result.state
    found = _Found(
        env.evaluator.pruned_model(state.keep, state.weights), state.keep, env.evaluations, minutes
    )
    assert found.model is not None
    save_pruned(
        draft,
        found.model,
        env.graph,
        state.keep,
        architecture=cell.task,
        extra={"cell": cell.key, "evaluations": found.evaluations, "minutes": minutes},
    )
    return found


def _read_draft(draft: Path, cell: Cell) -> _Found | None:
    """What `_search` kept for this cell; None if it did not, or for another one."""
    if not draft.is_dir():
        return None
    recipe = read_recipe(draft)
    if recipe.extra["cell"] != cell.key:
        return None
    return _Found(
        load_pruned(draft),
        recipe.keep_mask(),
        recipe.extra["evaluations"],
        recipe.extra["minutes"],
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
    model: nn.Module,
    keep: NDArray[np.bool_],
    folder: Path,
) -> Pruned:
    """Recover what the search found, store it, and look at test."""
    evaluator, graph = env.evaluator, env.graph
    splits: Splits = get_task(cell.task).load_data(context.data_root)
    # All of search-val chooses the epoch, whatever part of it the search has seen.
    images = splits.normalised(splits.search_val, context.device)
    labels = splits.search_val.labels.to(context.device)

    def judge(network: nn.Module) -> Metrics:
        return measure(network, images, labels, evaluator.batch_size)

    model.to(context.device)
    before = judge(model.eval())
    if cell.recovery.scratch:
        draw_anew(model, cell.seed)
    checkpoint = folder.with_name(f"{folder.name}.checkpoint")
    recovered = recover(
        model,
        dense,
        splits,
        cell.recovery,
        judge,
        seed=cell.seed,
        checkpoint=checkpoint,
        answers=folder.with_name("answers"),
        progress=context.progress,
    )
    # What is judged is what is stored, to the bit.
    round_to_half(model)
    after = judge(model)
    test = evaluator.certify(keep, Weights(model, keep))
    save_pruned(
        folder,
        _in_half(model),
        graph,
        keep,
        architecture=cell.task,
        extra={"cell": asdict(cell), "test_accuracy": test.accuracy},
    )
    checkpoint.unlink(missing_ok=True)
    shutil.rmtree(folder.with_name(f"{folder.name}.searched"), ignore_errors=True)
    stored = (folder / WEIGHTS_FILE).read_bytes()
    full = graph.full()
    return Pruned(
        before_val=before.accuracy,
        val_accuracy=after.accuracy,
        test_accuracy=test.accuracy,
        epoch=recovered.epoch,
        precision=recovered.precision,
        params=int(graph.params(keep)),
        params_share=float(graph.params(keep) / graph.params(full)),
        macs=int(graph.macs(keep)),
        macs_share=float(graph.macs(keep) / graph.macs(full)),
        filters_cut=filters_cut(dense, model),
        counts=tuple(int(count) for count in graph.counts(keep)),
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
