"""What a finished search leaves on disk: the pruned model, the agent, and the row.

One place, so that the command line and the benchmarks leave the same folder. It prints nothing.
"""

from __future__ import annotations

from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm

from agents.result import SearchResult
from agents.rows import ResultRow
from pruning_env.env import CNNPruneEnv
from pruning_env.files import atomic_path, atomic_write
from pruning_env.storage import save_pruned

RESULT_FILE = "result.json"
MODEL_NAME = "pruned"
AGENT_FILE = "agent.zip"


def write_result(
    folder: Path,
    env: CNNPruneEnv,
    task: str,
    result: SearchResult,
    row: ResultRow,
    algorithm: BaseAlgorithm | None,
) -> None:
    """Write a pruned model, its agent if it has one, and last the row, each file atomically.

    An earlier row is taken away first, so a folder that holds a row is complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (RESULT_FILE, AGENT_FILE):
        (folder / stale).unlink(missing_ok=True)
    save_pruned(
        folder / MODEL_NAME,
        env.evaluator.pruned_model(result.state.keep, result.state.weights),
        env.graph,
        result.state.keep,
        architecture=task,
        extra={"agent": row.agent, "seed": row.seed, "val_accuracy": row.val_accuracy},
    )
    if algorithm is not None:
        with atomic_path(folder / AGENT_FILE) as path:
            algorithm.save(path)
    atomic_write(folder / RESULT_FILE, row.to_json() + "\n")
