"""Modules under the names they had while all lay in one folder, for files and code of that time.

Pickled checkpoints, saved specs of environments and other people's imports name modules. A former
name is found last, and is the module itself, not a copy. Nothing in this project uses one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType

__all__ = ["FORMER_NAMES", "FormerNames"]

#: Former name in this package -> where it lies now.
FORMER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "actions": "process.actions",
        "allocation": "process.allocation",
        "batched": "evaluation.batched",
        "budgets": "process.budgets",
        "calling": "graph.functional",
        "channels": "graph.channel_graph",
        "compiled": "evaluation.compiled",
        "constraints": "process.constraints",
        "data": "tasks.data",
        "dynamics": "process.dynamics",
        "env": "envs.cnn_prune",
        "evaluator": "evaluation.evaluator",
        "execution": "evaluation.execution",
        "explain": "graph.explain",
        "finetuning": "evaluation.recovery.finetuning",
        "gates": "evaluation.importance.gate_gradients",
        "hashes": "tasks.fingerprints",
        "image_folders": "tasks.image_folders",
        "importance": "evaluation.importance.scores",
        "latency": "evaluation.latency",
        "ledger": "evaluation.ledger",
        "metrics": "evaluation.metrics",
        "models": "tasks.models",
        "observations": "process.observations",
        "picture": "graph.picture",
        "planning": "evaluation.planning",
        "precision": "evaluation.precision",
        "pruning": "graph.surgery",
        "recognition": "process.state_check",
        "recovery": "evaluation.recovery.batch_norm",
        "rendering": "envs.rendering",
        "rewards": "process.rewards",
        "sb3": "envs.sb3",
        "slots": "envs.slots",
        "state": "process.state",
        "storage": "tasks.storage",
        "strategies": "evaluation.strategies",
        "tabular.evaluator": "tabular.table_evaluator",
        "tabular.process": "tabular.table_dynamics",
        "tracing": "graph.tracing",
        "trial": "graph.trial",
        "units": "process.rounding",
        "usage": "process.usage",
        "vault": "evaluation.vault",
        "vector_env": "envs.cnn_prune_vector",
        "weights": "evaluation.weights",
        "window": "envs.viewer",
    }
)


class FormerNames(MetaPathFinder, Loader):
    """Finds modules by former names.

    Args:
        names: full former name -> full present name; the modules of a package come with it.
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def present(self, name: str) -> str | None:
        """The present name of a module, None if `name` is no former one."""
        whole = name
        while name:
            if name in self._names:
                return self._names[name] + whole[len(name) :]
            name = name.rpartition(".")[0]
        return None

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """A spec that this object loads; None for other names."""
        return None if self.present(fullname) is None else ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module itself in the place of the empty one that was made for its former name."""
        present = self.present(module.__name__)
        assert present is not None
        sys.modules[module.__name__] = importlib.import_module(present)
