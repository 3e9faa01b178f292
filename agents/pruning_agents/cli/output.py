"""What a finished search leaves on disk: the pruned model, the agent, and the row.

One place, so that the command line and the benchmarks leave the same folder. It prints nothing.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from stable_baselines3.common.base_class import BaseAlgorithm

from pruning_agents.search.result import SearchResult
from pruning_agents.search.rows import ResultRow
from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.files import atomic_path, atomic_write
from pruning_env.tasks.storage import save_pruned

RESULT_FILE = "result.json"
MODEL_NAME = "pruned"
AGENT_FILE = "agent.zip"
CHECKPOINT_FILE = "checkpoint.zip"


def write_model(folder: Path, env: CNNPruneEnv, task: str, result: SearchResult, seed: int) -> None:
    """Write the pruned model of a result, in place of an earlier one."""
    save_pruned(
        folder / MODEL_NAME,
        env.evaluator.pruned_model(result.state.keep, result.state.weights),
        env.graph,
        result.state.keep,
        architecture=task,
        extra={"agent": result.agent, "seed": seed, "val_accuracy": result.accuracy},
    )


def agent_name(path: Path) -> str | None:
    """Registered name of the agent in a file of `write_result`; None if the file has none.

    Raises:
        ValueError: it is no zip file.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return file.comment.decode() or None
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is no saved agent: {error}") from error


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
    write_model(folder, env, task, result, row.seed)
    if algorithm is not None:
        with atomic_path(folder / AGENT_FILE) as path:
            algorithm.save(path)
            with zipfile.ZipFile(path, "a") as file:  # SB3 does not say whose the file is
                file.comment = row.agent.encode()
    atomic_write(folder / RESULT_FILE, row.to_json() + "\n")
