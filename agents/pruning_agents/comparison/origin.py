"""What a result was made from: hashes of the network's structure, its weights and its images.

Knows environments and tasks; nothing of agents or rows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.tabular.env import CNNPruneTabularEnv
from pruning_env.tasks.fingerprints import splits_hash, weights_hash
from pruning_env.tasks.registry import get_task


@dataclass(frozen=True)
class Origin:
    """Equal for two results that can be compared.

    Attributes:
        graph: fingerprint of the channel graph: what a keep mask means.
        weights_sha256: of the dense network's weights; on the solved tier of their file.
        data_sha256: of all images and labels.
    """

    graph: str
    weights_sha256: str
    data_sha256: str


def origin_of(env: CNNPruneEnv, settings: Mapping[str, Any]) -> Origin:
    """The origin of results in `env`, which was made with `settings`.

    The data are read once more, and forgotten: a hash of the test split is no look at it.
    """
    if isinstance(env, CNNPruneTabularEnv):
        about = env.table.provenance
        return Origin(env.graph.fingerprint, about["weights_sha256"], about["data_sha256"])
    hashes = _hashes(env.task_name, settings.get("weights"), settings.get("data_root"))
    return Origin(env.graph.fingerprint, *hashes)


@functools.lru_cache(maxsize=8)
def _hashes(task: str, weights: str | None, data_root: str | None) -> tuple[str, str]:
    known = get_task(task)
    return weights_hash(known.model(weights, data_root)), splits_hash(known.load_data(data_root))
