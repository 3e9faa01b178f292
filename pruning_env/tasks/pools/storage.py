"""A pool of networks on disk: `<name>.json` says what they are, `<name>.safetensors` holds them.

Of each network two tensors: all parameters and buffers in one row of float16, in the order of its
`state_dict`, and the traced graph as compressed JSON in bytes, which spares tracing it again. The
rows of the JSON carry a hash of both, and one of the names and shapes that the numbers are for.
Nothing is unpickled. Knows nothing of training or pruning.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from pruning_env.files import atomic_write
from pruning_env.graph.channel_graph import ChannelGraph
from pruning_env.graph.serialised import facts_from_json, facts_to_json
from pruning_env.tasks.pools.specification import Specification

__all__ = ["POOLS", "SHIPPED", "Pool", "PooledNetwork", "open_pool", "packed", "write_pool"]

SHIPPED = Path(__file__).parent / "shipped"
POOLS = ("train", "test", "unseen-families")
"""Those that come with the package. No network is in two of them, and the families of the third
are in no other."""

_LEVEL = 9


@dataclass(frozen=True)
class PooledNetwork:
    """A network of a pool as it is stored.

    Attributes:
        row: What the JSON says of it.
        weights: (P,) float16.
        graph: (B,) uint8, zlib's bytes.
    """

    row: Mapping[str, Any]
    weights: torch.Tensor
    graph: torch.Tensor


class Pool:
    """The networks of one pool; each is read when it is asked for, and checked.

    Args:
        path: The JSON file; the weights lie beside it.

    Attributes:
        path: As given.
        name: Of a pool that ships its name, else one made of the content.
        about: What the JSON says of the pool as a whole: how it was made.
        rows: What it says of each network.

    Raises:
        FileNotFoundError: One of the two files is missing.
        ValueError: The JSON is damaged, or no pool's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._weights = path.with_suffix(".safetensors")
        for file in (path, self._weights):
            if not file.is_file():
                raise FileNotFoundError(f"pool: no file {file}.")
        text = path.read_text(encoding="utf-8")
        try:
            content = json.loads(text)
            self.rows: tuple[dict[str, Any], ...] = tuple(content.pop("networks"))
            self.about: dict[str, Any] = content
            self._specifications = tuple(
                Specification.from_json(row["specification"]) for row in self.rows
            )
            self.groups = max((int(row["groups"]) for row in self.rows), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"pool: {path} is damaged, or no pool of networks: {error}") from error
        shipped = path.parent == SHIPPED and path.stem in POOLS
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.name = path.stem if shipped else digest[:12]

    def __len__(self) -> int:
        return len(self.rows)

    def specification(self, index: int) -> Specification:
        """What network `index` is."""
        return self._specifications[self._checked(index)]

    def fill(self, index: int, module: nn.Module) -> None:
        """Give `module`, built of the specification, its weights, as float32.

        Raises:
            ValueError: The files are damaged, or were made for another form of the network.
        """
        weights = self.stored(index).weights
        if _layout(module) != self.rows[index].get("layout"):
            raise self._damaged(index, "its tensors have other names or shapes")
        tensors = [tensor for _, tensor in _floats(module)]
        parts = weights.split([tensor.numel() for tensor in tensors])
        with torch.no_grad():
            for tensor, values in zip(tensors, parts, strict=True):
                tensor.copy_(values.view(tensor.shape))

    def graph(self, index: int) -> ChannelGraph:
        """The channels of network `index`, as they were traced when it was made.

        Raises:
            ValueError: The files are damaged.
        """
        content = zlib.decompress(self.stored(index).graph.numpy().tobytes())
        return ChannelGraph(facts_from_json(json.loads(content)))

    def stored(self, index: int) -> PooledNetwork:
        """Network `index` as the files have it, of the hash that its row says.

        Raises:
            ValueError: There is none, or the files are damaged.
        """
        row = self.rows[self._checked(index)]
        try:
            with safe_open(self._weights, framework="pt") as file:
                weights, graph = (file.get_tensor(key) for key in _keys(index))
        except (SafetensorError, OSError) as error:
            raise self._damaged(index, str(error)) from error
        if _digest(weights, graph) != row.get("sha256"):
            raise self._damaged(index, "its hash is another")
        return PooledNetwork(row, weights, graph)

    def _damaged(self, index: int, why: str) -> ValueError:
        return ValueError(
            f"pool: network {index} of {self._weights} is damaged, or was made by another version "
            f"of this package: {why}"
        )

    def _checked(self, index: int) -> int:
        if not 0 <= index < len(self.rows):
            raise ValueError(
                f"network={index!r} is not allowed; {self.path} has networks 0 to "
                f"{len(self.rows) - 1}"
            )
        return index


_OPENED: dict[str, Pool] = {}


def open_pool(pool: str) -> Pool:
    """The pool of that name that ships, or at that path; or one opened before, by its name.

    Args:
        pool: One of `POOLS`, the path of a pool's JSON file, or the `name` of a `Pool` that this
            process has opened.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is damaged.
    """
    if pool in POOLS:
        return _shipped(pool)
    if pool in _OPENED:
        return _OPENED[pool]
    if not isinstance(pool, str) or not pool.endswith(".json"):
        raise ValueError(
            f"pool={pool!r} is unknown; give one of {', '.join(POOLS)}, or the path of a .json file"
        )
    opened = Pool(Path(pool))
    return _OPENED.setdefault(opened.name, opened)


@functools.cache
def _shipped(name: str) -> Pool:
    return Pool(SHIPPED / f"{name}.json")


def packed(
    spec: Specification, module: nn.Module, graph: ChannelGraph, about: Mapping[str, Any]
) -> PooledNetwork:
    """A trained network as a pool stores it.

    Args:
        spec: What it was built from.
        module: The network; its weights are rounded to float16, in the copy that is stored.
        graph: Its channels.
        about: More for its row.
    """
    weights = torch.cat([tensor.detach().flatten() for _, tensor in _floats(module)]).half()
    text = json.dumps(facts_to_json(graph.facts), separators=(",", ":"))
    # frombuffer: bytes are read-only, a copy is not.
    compressed = torch.from_numpy(
        np.frombuffer(zlib.compress(text.encode(), _LEVEL), dtype=np.uint8).copy()
    )
    row = {
        "specification": spec.to_json(),
        "groups": len(graph.groups),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        **about,
        "layout": _layout(module),
        "sha256": _digest(weights, compressed),
    }
    return PooledNetwork(row, weights, compressed)


def write_pool(path: Path, about: Mapping[str, Any], networks: Sequence[PooledNetwork]) -> None:
    """Write a pool, each of its files whole or not at all, the one that counts last."""
    tensors: dict[str, torch.Tensor] = {}
    for index, network in enumerate(networks):
        tensors |= dict(zip(_keys(index), (network.weights, network.graph), strict=True))
    atomic_write(path.with_suffix(".safetensors"), save(tensors))
    rows = ",\n".join(json.dumps(dict(network.row)) for network in networks)
    head = json.dumps(dict(about), indent=1).rstrip("}").rstrip()
    atomic_write(path, f'{head},\n "networks": [\n{rows}\n]}}\n')


def _keys(index: int) -> tuple[str, str]:
    """What the weights and the graph of a network are called in the file."""
    return f"weights/{index:03d}", f"graph/{index:03d}"


def _floats(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Parameters and buffers that are numbers; counters of batches play no part in outputs."""
    return [(n, t) for n, t in module.state_dict().items() if t.is_floating_point()]


def _layout(module: nn.Module) -> str:
    """SHA-256 of the names and shapes of the tensors, in order."""
    text = "".join(f"{name}{tuple(tensor.shape)}" for name, tensor in _floats(module))
    return hashlib.sha256(text.encode()).hexdigest()


def _digest(weights: torch.Tensor, graph: torch.Tensor) -> str:
    """SHA-256 of both."""
    return hashlib.sha256(weights.numpy().tobytes() + graph.numpy().tobytes()).hexdigest()
