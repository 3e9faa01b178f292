"""What is seen of a network that was never seen before: features that mean the same in any.

The features of `CNNPrune-v0`, those below, and padding. Knows nothing of pools or episodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from pruning_env.envs.cnn_prune import CNNPruneEnv
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.process.observations import GLOBAL_FEATURES, GROUP_FEATURES, STEPS_LEFT, Feature
from pruning_env.process.state import PruningState
from pruning_env.wrappers.pad_groups import padded_rows

__all__ = [
    "KINDS",
    "TRANSFER_FEATURES",
    "TRANSFER_GLOBALS",
    "Layout",
    "NetworkView",
    "adjacency",
    "group_feature_names",
]

Table = NDArray[np.float64]

KINDS = ("flat", "dict")

RATIOS = (0.25, 0.5, 0.75)
"""Shares of a group's channels of which it is said what goes with them."""


@dataclass(frozen=True)
class Described:
    """What a transfer feature may look at: a dense network, and how much its channels matter.

    Attributes:
        graph: of the network.
        taylor: (C,) importance by one pass forward and back.
        reconstruction: (C,) share of what the readers of a group say that is lost, the readers
            fitted anew, once a channel and those of its group with lower scores are gone; summed
            over readers.
    """

    graph: ChannelGraph
    taylor: Table
    reconstruction: Table


@dataclass(frozen=True)
class TransferFeature:
    """One more column of the group table, or one more global; of the dense network."""

    name: str
    low: float
    high: float
    meaning: str
    compute: Callable[[Described], Table]


def _groups(seen: Described, values: Table) -> list[Table]:
    """Per group, its channels' values, the lowest first."""
    return [np.sort(values[g.start : g.start + g.size]) for g in seen.graph.groups]


def _log_width(seen: Described) -> Table:
    return np.log2(seen.graph.sizes) / 10


def _kernel_size(seen: Described) -> Table:
    return np.array([group.kernel for group in seen.graph.groups]) / 7


def _downsampling(seen: Described) -> Table:
    return np.array([group.stride > 1 for group in seen.graph.groups], dtype=np.float64)


def _residual(seen: Described) -> Table:
    return np.array([group.summed for group in seen.graph.groups], dtype=np.float64)


def _producers(seen: Described) -> Table:
    return np.log2([1 + len(group.layers) for group in seen.graph.groups]) / 5


def _readers(seen: Described) -> Table:
    return np.log2([1 + len(group.consumers) for group in seen.graph.groups]) / 5


def _relative_importance(seen: Described) -> Table:
    return _decades(np.array([group.mean() for group in _groups(seen, seen.taylor)]))


def _importance_per_mac(seen: Described) -> Table:
    sizes, graph = seen.graph.sizes, seen.graph
    one_less = sizes - np.eye(sizes.size, dtype=np.int64) * (sizes > 1)
    saved = np.asarray(graph.macs_at(sizes)) - np.asarray(graph.macs_at(one_less), dtype=np.float64)
    means = np.array([group.mean() for group in _groups(seen, seen.taylor)])
    return _decades(means / np.maximum(saved, 1.0))


def _importance_lost(ratio: float) -> Callable[[Described], Table]:
    def lost(seen: Described) -> Table:
        sums = [np.cumsum(group) for group in _groups(seen, seen.taylor)]
        return np.array([_at(ratio, each) / max(float(each[-1]), 1e-30) for each in sums])

    return lost


def _reconstruction_lost(ratio: float) -> Callable[[Described], Table]:
    def lost(seen: Described) -> Table:
        values = [_at(ratio, group) for group in _groups(seen, seen.reconstruction)]
        return np.array(values) / [max(1, len(group.consumers)) for group in seen.graph.groups]

    return lost


def _at(ratio: float, lost: Table) -> float:
    """What is lost with a share of n channels: (n,) says it of 1, 2, ..., n of them."""
    sums = np.concatenate([[0.0], lost])
    return float(np.interp(ratio * len(lost), np.arange(len(sums)), sums))


def _decades(values: Table) -> Table:
    """Logarithms relative to their mean: 1 is three orders of magnitude above it."""
    logs = np.log10(np.maximum(values, 1e-30))
    return (logs - logs.mean()) / 3


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f}"


TRANSFER_FEATURES: tuple[TransferFeature, ...] = (
    TransferFeature("log_width", 0, 1, "log2 of the dense width / 10", _log_width),
    TransferFeature("kernel_size", 0, 1, "kernel size / 7", _kernel_size),
    TransferFeature("downsampling", 0, 1, "whether its stride is above 1", _downsampling),
    TransferFeature("residual", 0, 1, "whether a sum couples its layers", _residual),
    TransferFeature("producers", 0, 1, "log2(1 + layers that lose outputs) / 5", _producers),
    TransferFeature("readers", 0, 1, "log2(1 + layers that lose inputs) / 5", _readers),
    TransferFeature(
        "relative_importance",
        -1,
        1,
        "log10 of mean Taylor importance / 3, less the mean",
        _relative_importance,
    ),
    TransferFeature(
        "importance_per_mac", -1, 1, "the same, per MAC that a channel costs", _importance_per_mac
    ),
    *(
        TransferFeature(
            f"importance_lost_{_percent(ratio)}",
            0,
            1,
            f"share of its importance in the least important {_percent(ratio)} %",
            _importance_lost(ratio),
        )
        for ratio in RATIOS
    ),
    *(
        TransferFeature(
            f"reconstruction_lost_{_percent(ratio)}",
            0,
            1,
            f"share of what its readers say that is lost with {_percent(ratio)} %",
            _reconstruction_lost(ratio),
        )
        for ratio in RATIOS
    ),
)
"""After the columns of `CNNPrune-v0`; measured once, on the dense network and search-train."""

TRANSFER_GLOBALS: tuple[TransferFeature, ...] = (
    TransferFeature(
        "log_groups",
        0,
        1,
        "log2 of the number of groups / 8",
        lambda seen: np.log2([len(seen.graph.groups)]) / 8,
    ),
    TransferFeature(
        "log_params",
        0,
        1,
        "log10 of the dense parameters / 9",
        lambda seen: np.log10([float(seen.graph.params(seen.graph.full()))]) / 9,
    ),
    TransferFeature(
        "log_macs",
        0,
        1,
        "log10 of the dense MACs / 12",
        lambda seen: np.log10([float(seen.graph.macs(seen.graph.full()))]) / 12,
    ),
)
"""After the globals of `CNNPrune-v0`."""


def group_feature_names() -> tuple[str, ...]:
    """The columns of the group table, without `present`, which padding adds."""
    return (*(each.name for each in GROUP_FEATURES), *(each.name for each in TRANSFER_FEATURES))


def adjacency(graph: ChannelGraph) -> NDArray[np.float32]:
    """(L, L) of 0 and 1: whether a layer of group j, the column, reads group i, the row."""
    reads = np.zeros((len(graph.groups),) * 2, dtype=np.float32)
    for row, group in enumerate(graph.groups):
        for column, other in enumerate(graph.groups):
            reads[row, column] = not set(group.consumers).isdisjoint(other.layers)
    return reads


class NetworkView:
    """What is seen of one network: its own numbers, measured once, beside those of a state.

    Args:
        env: of the network; its observations are flat.
    """

    def __init__(self, env: CNNPruneEnv) -> None:
        graph = env.graph
        seen = Described(
            graph, env.evaluator.scores("taylor"), env.evaluator.scores("reconstruction")
        )
        columns = [_within(feature, seen) for feature in TRANSFER_FEATURES]
        self._table = np.stack(columns, axis=1)
        self._tail = np.concatenate([_within(feature, seen) for feature in TRANSFER_GLOBALS])
        self.adjacency = adjacency(graph)

    def numbers(
        self, env: CNNPruneEnv, state: PruningState
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(L, F) table and (G,) globals of a state of `env`, which has this network."""
        flat = env.observe(state)
        size = len(env.graph.groups) * len(GROUP_FEATURES)
        table = flat[:size].reshape(-1, len(GROUP_FEATURES))
        return np.hstack([table, self._table]), np.concatenate([flat[size:], self._tail])


class Layout:
    """How the numbers are arranged in a space that is the same for all networks.

    Args:
        kind: "flat" or "dict".
        groups: N, rows.
        budgets: names of the budgets, one global each.
    """

    def __init__(self, kind: str, groups: int, budgets: tuple[str, ...]) -> None:
        self._kind = kind
        self._groups = groups
        columns: list[Feature | TransferFeature] = [*GROUP_FEATURES, *TRANSFER_FEATURES]
        self._columns = columns
        tail: list[tuple[Feature | TransferFeature, str]] = []
        of_states: tuple[Feature, ...] = (*GLOBAL_FEATURES, STEPS_LEFT)
        for feature in of_states:
            each = budgets if feature.name == "over_budget" else ("",)
            tail += [(feature, f"{feature.name}/{name}".rstrip("/")) for name in each]
        self._tail = [*tail, *((each, each.name) for each in TRANSFER_GLOBALS)]

    @property
    def global_names(self) -> tuple[str, ...]:
        """Of the globals, in order."""
        return tuple(name for _, name in self._tail)

    def space(self) -> spaces.Space:
        """A fresh space of the observations: bounded float32 boxes."""
        low, high = (
            np.array([getattr(f, end) for f in self._columns], dtype=np.float32)
            for end in ("low", "high")
        )
        tails = [
            np.array([getattr(f, end) for f, _ in self._tail], dtype=np.float32)
            for end in ("low", "high")
        ]
        n = self._groups
        # Rows of absent groups are 0, which lies within the bounds of every feature.
        low, high = (np.tile(bound, (n, 1)) for bound in (low, high))
        if self._kind == "flat":
            ones = np.ones((n, 1), dtype=np.float32)
            return spaces.Box(
                np.concatenate([np.hstack([low, 0 * ones]).ravel(), tails[0]]),
                np.concatenate([np.hstack([high, ones]).ravel(), tails[1]]),
                dtype=np.float32,
            )
        return spaces.Dict(
            {
                "adjacency": spaces.Box(0, 1, (n, n), np.float32),
                "globals": spaces.Box(tails[0], tails[1], dtype=np.float32),
                "groups": spaces.Box(low, high, dtype=np.float32),
                "mask": spaces.Box(0, 1, (n,), np.float32),
            }
        )

    def arranged(
        self, table: NDArray[np.float32], tail: NDArray[np.float32], reads: NDArray[np.float32]
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """The observation of a table (L, F), globals (G,) and adjacency (L, L)."""
        rows = padded_rows(table, self._groups)
        tail = tail.astype(np.float32)
        if self._kind == "flat":
            return np.concatenate([rows.ravel(), tail])
        square = np.zeros((self._groups, self._groups), dtype=np.float32)
        square[: len(reads), : len(reads)] = reads
        return {
            "adjacency": square,
            "globals": tail,
            "groups": rows[:, :-1].copy(),
            "mask": rows[:, -1].copy(),
        }


def _within(feature: TransferFeature, seen: Described) -> NDArray[np.float32]:
    """A feature's values, clipped into its range."""
    values = np.clip(feature.compute(seen), feature.low, feature.high)
    return np.asarray(values, dtype=np.float32)
