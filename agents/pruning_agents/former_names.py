"""Modules of this package under `agents`, which it was called before another package took the name.

Agents and checkpoints that were saved then name classes by these modules. Since `agents` is a
widely installed package of somebody else, the former names hold only inside a block, while such a
file is read.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType, ModuleType

from pruning_env.former_names import FormerNames

__all__ = ["former_names", "present_name"]

_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "agents": "pruning_agents",
        "agents.__main__": "pruning_agents.__main__",
        "agents.baselines": "pruning_agents.baselines",
        "agents.candidates": "pruning_agents.rl_pruner.candidates",
        "agents.checkpoints": "pruning_agents.search.checkpoints",
        "agents.cli": "pruning_agents.cli.main",
        "agents.cost_buffer": "pruning_agents.ppo_lagrangian.cost_buffer",
        "agents.cost_collector": "pruning_agents.ppo_lagrangian.cost_collector",
        "agents.cost_critic": "pruning_agents.ppo_lagrangian.cost_critic",
        "agents.delivery": "pruning_agents.cli.delivery",
        "agents.distribution": "pruning_agents.search.distribution",
        "agents.distribution_policy": "pruning_agents.rl_pruner.distribution_policy",
        "agents.environment_options": "pruning_agents.cli.options",
        "agents.generators": "pruning_agents.search.rng_state",
        "agents.graph_command": "pruning_agents.cli.graph",
        "agents.groupwise": "pruning_agents.stock.groupwise",
        "agents.groupwise_policy": "pruning_agents.rl_pruner.groupwise_policy",
        "agents.guests": "pruning_agents.search.import_path",
        "agents.judge": "pruning_agents.search.judge",
        "agents.lookahead": "pruning_agents.rl_pruner.lookahead",
        "agents.multiplier": "pruning_agents.ppo_lagrangian.multiplier",
        "agents.output": "pruning_agents.cli.output",
        "agents.plugins": "pruning_agents.cli.plugins",
        "agents.ppo_lagrangian": "pruning_agents.ppo_lagrangian.algorithm",
        "agents.profile_command": "pruning_agents.cli.profile",
        "agents.ranges": "pruning_agents.search.ranges",
        "agents.recording": "pruning_agents.search.recording",
        "agents.registry": "pruning_agents.search.registry",
        "agents.result": "pruning_agents.search.result",
        "agents.rl_pruner": "pruning_agents.rl_pruner.algorithm",
        "agents.rl_zoo": "pruning_agents.stock.rl_zoo",
        "agents.rollout": "pruning_agents.search.rollout",
        "agents.rollout_logs": "pruning_agents.search.rollout_logs",
        "agents.rows": "pruning_agents.search.rows",
        "agents.sb3_agents": "pruning_agents.stock.sb3_agents",
        "agents.scaling": "pruning_agents.stock.scaling",
        "agents.settings": "pruning_agents.stock.settings",
        "agents.spending": "pruning_agents.search.budgeted_search",
        "agents.train_command": "pruning_agents.cli.train",
        "agents.training": "pruning_agents.search.training",
    }
)


def present_name(module: str) -> str:
    """The name of a module today; `module` itself unless that is exactly a former name."""
    return _NAMES.get(module, module)


@contextmanager
def former_names() -> Iterator[None]:
    """Let `agents` and its modules mean this package inside the block; what they mean else is kept.

    What a former name did not mean is not found inside, so do not import other things there.
    """
    theirs = _take()
    finder = FormerNames(_NAMES)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        _take()
        sys.modules.update(theirs)


def _take() -> dict[str, ModuleType]:
    """Remove `agents` and its modules from those that are loaded, and return them."""
    names = [name for name in sys.modules if name == "agents" or name.startswith("agents.")]
    return {name: sys.modules.pop(name) for name in names}
