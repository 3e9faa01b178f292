"""One propagation rule per ATen operator, by kind; importing this package fills the table.

To add an operator, add one rule to the module of its kind, and one test.
"""

from pruning_env.graph.tracing.rules import (
    attention,
    deformable,
    elementwise,
    layers,
    movement,
    recurrent,
    space,
    splits,
    weights,
)
from pruning_env.graph.tracing.rules.registry import RULES, apply_rule
from pruning_env.graph.tracing.rules.weights import computed_weights

__all__ = [
    "RULES",
    "apply_rule",
    "attention",
    "computed_weights",
    "deformable",
    "elementwise",
    "layers",
    "movement",
    "recurrent",
    "space",
    "splits",
    "weights",
]
