"""The table: every configuration of one network on a grid of widths, judged once, and its file.

A configuration is how many units of `round_to` channels each group holds; its index is its place in
C order on the grid of units. Loading refuses a file that is not whole or not of the network that
the caller has. Knows nothing of episodes, budgets or rewards.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pruning_env.files import atomic_path
from pruning_env.graph.serialised import facts_from_json, facts_to_json
from pruning_env.graph.structure import Facts
from pruning_env.process.rounding import WidthUnits

if TYPE_CHECKING:
    from pruning_env.graph.channel_graph import ChannelGraph

__all__ = ["RECOVERIES", "SHIPPED", "Results", "Table", "load_table", "ranking_hash", "save_table"]

FORMAT = 1
RECOVERIES = ("none", "bn")
"""What was done to each network before it was judged, see recovery.py; one set of results each."""

SHIPPED = Path(__file__).with_name("digits-resnet8.npz")
"""The table that comes with the package."""

_FACTS = "graph"

_COLUMNS = {
    "val_correct": np.uint16,
    "val_loss": np.float32,
    "test_correct": np.uint16,
    "test_loss": np.float32,
}


@dataclass(frozen=True, eq=False)
class Results:
    """What became of every configuration under one recovery, (M,) each, read-only.

    Attributes:
        val_correct: search-val images classified correctly.
        val_loss: search-val cross-entropy, mean per image.
        test_correct: test images classified correctly. Published, so that regret on unseen images
            can be computed; no reward, observation or info may read it.
        test_loss: test cross-entropy, mean per image.
    """

    val_correct: np.ndarray
    val_loss: np.ndarray
    test_correct: np.ndarray
    test_loss: np.ndarray


@dataclass(frozen=True, eq=False)
class Table:
    """M configurations of a network with L groups and C channels; arrays are read-only.

    Attributes:
        round_to: channels in a unit, see units.py.
        sizes: (L,) int64 channels of each group in the dense network.
        scores: (C,) float64 importance of each channel; the least important of a group go first.
        params: (M,) int64 parameters.
        macs: (M,) int64 multiply-accumulates per image.
        results: by recovery. The dense network, the last entry, was judged without recovery.
        provenance: how the table was made, and hashes of what it was made from.
        facts: the traced network, so that no one needs to trace it again; None in older tables.
    """

    round_to: int
    sizes: np.ndarray
    scores: np.ndarray
    params: np.ndarray
    macs: np.ndarray
    results: Mapping[str, Results]
    provenance: Mapping[str, Any]
    facts: Facts | None = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """(L,) number of units of each group in the dense network: the grid."""
        return tuple((WidthUnits(self.sizes, self.round_to).left(self.sizes) + 1).tolist())

    @cached_property
    def strides(self) -> np.ndarray:
        """(L,) int64: by how much the index grows for one more unit of each group."""
        grid = np.array(self.shape, dtype=np.int64)
        return np.append(np.cumprod(grid[:0:-1])[::-1], 1)

    @property
    def size(self) -> int:
        """M, the number of configurations."""
        return int(np.prod(self.shape))

    @property
    def val_images(self) -> int:
        """Search-val images that each configuration was judged on."""
        return int(self.provenance["splits"]["search_val"])

    @property
    def test_images(self) -> int:
        """Test images that each configuration was judged on."""
        return int(self.provenance["splits"]["test"])

    def without_test(self) -> Table:
        """The same table with empty test columns, (0,): copies, for a view leads to the whole."""
        return dataclasses.replace(
            self,
            results={
                recovery: dataclasses.replace(
                    results,
                    test_correct=results.test_correct[:0].copy(),
                    test_loss=results.test_loss[:0].copy(),
                )
                for recovery, results in self.results.items()
            },
        )

    def restrict(self, indices: np.ndarray, graph: ChannelGraph) -> Table:
        """The configurations in which only some groups are pruned, as a table of its own.

        Args:
            indices: (K,) rising indices of the groups.
            graph: the network's, restricted to them.
        """
        # The others are at the end of their axes, where they are whole.
        taken = tuple(slice(None) if group in indices else -1 for group in range(self.sizes.size))
        places = np.arange(self.size).reshape(self.shape)[taken].ravel()
        scores = self.scores[np.isin(np.repeat(np.arange(self.sizes.size), self.sizes), indices)]
        restricted = dataclasses.replace(
            self,
            sizes=graph.sizes,
            scores=scores,
            params=self.params[places],
            macs=self.macs[places],
            results={
                recovery: Results(*(getattr(results, column)[places] for column in _COLUMNS))
                for recovery, results in self.results.items()
            },
            provenance={
                **self.provenance,
                "graph_fingerprint": graph.fingerprint,
                "ranking_sha256": ranking_hash(graph.rank(scores)),
            },
            facts=graph.facts,
        )
        restricted.lock()
        return restricted

    def lock(self) -> None:
        """Make the arrays read-only."""
        columns = [getattr(each, name) for each in self.results.values() for name in _COLUMNS]
        for array in (self.sizes, self.scores, self.params, self.macs, *columns):
            array.setflags(write=False)

    def index(self, counts: Any) -> np.ndarray:
        """(...) int64 places of channel counts (..., L).

        Raises:
            ValueError: counts of another shape, or not on the grid.
        """
        counts = np.asarray(counts)
        units = WidthUnits(self.sizes, self.round_to)
        if counts.dtype.kind not in "iu" or counts.shape[-1:] != self.sizes.shape:
            raise ValueError(
                f"counts has dtype {counts.dtype} and shape {counts.shape}; give whole numbers, "
                f"(..., {self.sizes.size}), one per group"
            )
        if not all(units.reachable(row) for row in counts.reshape(-1, self.sizes.size)):
            raise ValueError(
                f"counts={counts.tolist()} is not in the table; each count must be the dense "
                f"width of {self.sizes.tolist()} or a multiple of {self.round_to} below it"
            )
        return units.left(counts) @ self.strides

    def counts(self, index: Any) -> np.ndarray:
        """(..., L) int64 channel counts at places (...)."""
        held = np.stack(np.unravel_index(index, self.shape), axis=-1) + 1
        return np.minimum(held * self.round_to, self.sizes)

    def check(self, graph: ChannelGraph) -> None:
        """Make sure that a keep mask of `graph` means what it meant when the table was made.

        Raises:
            ValueError: the graph or its ranking by `scores` is another one.
        """
        made_from = self.provenance["graph_fingerprint"]
        if graph.fingerprint != made_from:
            raise ValueError(
                f"table: made from a graph with fingerprint {made_from[:12]}..., this one's is "
                f"{graph.fingerprint[:12]}...; enumerate the network again"
            )
        if ranking_hash(graph.rank(self.scores)) != self.provenance["ranking_sha256"]:
            raise ValueError("table: its scores do not give the ranking that it was made with")


def ranking_hash(rank: np.ndarray) -> str:
    """SHA-256 of a ranking (C,), the same on every platform."""
    return hashlib.sha256(np.asarray(rank, dtype="<i8").tobytes()).hexdigest()


def save_table(table: Table, path: str | os.PathLike[str]) -> None:
    """Write a table, all of it or nothing: compressed arrays without pickle, provenance as JSON."""
    arrays: dict[str, np.ndarray] = {
        "sizes": table.sizes.astype(np.int64),
        "scores": table.scores.astype(np.float64),
        # Costs grow by few different amounts along the grid: differences take 2 % of the bytes.
        "params": np.diff(table.params, prepend=0).astype(np.int32),
        "macs": np.diff(table.macs, prepend=0).astype(np.int32),
    }
    for recovery, results in table.results.items():
        for column, dtype in _COLUMNS.items():
            arrays[f"{recovery}_{column}"] = getattr(results, column).astype(dtype)
    about = {
        "format": FORMAT,
        "round_to": table.round_to,
        **table.provenance,
        **({} if table.facts is None else {_FACTS: facts_to_json(table.facts)}),
        "arrays_sha256": _arrays_hash(arrays),
    }
    text = np.frombuffer(json.dumps(about, indent=1).encode(), np.uint8)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, provenance=text, **arrays)  # type: ignore[arg-type]


def load_table(path: str | os.PathLike[str] = SHIPPED) -> Table:
    """Read a table that `save_table` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        about = json.loads(arrays.pop("provenance").tobytes())
        checksum, made = about.pop("arrays_sha256"), about.pop("format")
        round_to = about.pop("round_to")
        facts = about.pop(_FACTS, None)
    except FileNotFoundError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        KeyError,
        TypeError,  # a lone array, which is no archive
        NotImplementedError,  # a damaged header that asks for another compression
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(f"path={os.fspath(path)!r} is no whole table: {error!r}") from error
    if made != FORMAT:
        raise ValueError(f"path={os.fspath(path)!r} has format {made}; this version reads {FORMAT}")
    if checksum != _arrays_hash(arrays):
        raise ValueError(f"path={os.fspath(path)!r} is damaged: its checksum does not fit")
    table = Table(
        round_to,
        arrays["sizes"],
        arrays["scores"],
        np.cumsum(arrays["params"], dtype=np.int64),
        np.cumsum(arrays["macs"], dtype=np.int64),
        {r: Results(*(arrays[f"{r}_{column}"] for column in _COLUMNS)) for r in RECOVERIES},
        about,
        None if facts is None else facts_from_json(facts),
    )
    table.lock()
    columns = [getattr(table.results[r], column) for r in RECOVERIES for column in _COLUMNS]
    for array in (table.params, table.macs, *columns):
        if array.shape != (table.size,):
            raise ValueError(
                f"path={os.fspath(path)!r}: a column has shape {array.shape}, "
                f"the grid {table.shape} has {table.size} configurations"
            )
    return table


def _arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        stored = array.astype(array.dtype.newbyteorder("<"))
        digest.update(f"{name}{stored.dtype.str}{stored.shape}".encode() + stored.tobytes())
    return digest.hexdigest()
