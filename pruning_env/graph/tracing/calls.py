"""Which nodes of an exported graph belong to which module, and where each call begins and ends.

`torch.export` leaves with every node the stack of modules that were running. This module reads that
stack; it knows nothing of labels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from torch import nn
from torch.fx import Node

# `self.features[1:]` is called as "features.slice(1, ...)".
_SLICE = re.compile(r"\.?slice\([^)]*\)")


@dataclass
class Call:
    """One call of a module: the nodes inside (submodules' too), in execution order."""

    nodes: dict[Node, None] = field(default_factory=dict)  # a set that keeps its order

    @property
    def entries(self) -> list[Node]:
        """Activations that come from outside."""
        inputs = (a for n in self.nodes for a in n.all_input_nodes if a not in self.nodes)
        return [a for a in dict.fromkeys(inputs) if not a.meta.get(CONSTANT)]

    @property
    def exits(self) -> list[Node]:
        """Nodes that are used outside."""
        return [n for n in self.nodes if any(user not in self.nodes for user in n.users)]


CONSTANT = "pruning_env_constant"
"""Key of `Node.meta` that is true for parameters, buffers and constants."""


class Calls:
    """The calls of every module in one graph.

    Args:
        model: The exported module.
        nodes: The nodes of its graph.
    """

    def __init__(self, model: nn.Module, nodes: Iterable[Node]) -> None:
        canonical = {id(module): name for name, module in model.named_modules()}
        self._names = {
            name: canonical[id(module)]
            for name, module in model.named_modules(remove_duplicate=False)
        }
        self._calls: dict[str, dict[str, Call]] = {}
        for node in nodes:
            if node.op == "call_function":
                for key, (path, _) in (node.meta.get("nn_module_stack") or {}).items():
                    calls = self._calls.setdefault(self._canonical(path), {})
                    calls.setdefault(key, Call()).nodes[node] = None

    def module_of(self, node: Node) -> str:
        """Name of the innermost module that calls `node`; "" for the model itself."""
        stack = node.meta.get("nn_module_stack") or {}
        return self._canonical(next(reversed(list(stack.values())), ("", None))[0])

    def of(self, path: str) -> list[Call]:
        """The calls of the module `path`, in execution order."""
        return list(self._calls.get(path, {}).values())

    def paths(self) -> list[str]:
        """Names of all modules that are called, in execution order."""
        return list(self._calls)

    def _canonical(self, path: str) -> str:
        path = _SLICE.sub("", path.partition("@")[0]).lstrip(".")
        while path not in self._names:  # made up by code that calls modules in its own way
            path = path.rpartition(".")[0]
        return self._names[path]
