"""One propagation rule per ATen operator, by kind; importing this package fills the table.

To add an operator, add one rule to the module of its kind, and one test.
"""

from pruning_env.graph.tracing.rules import elementwise, layers, movement, space
from pruning_env.graph.tracing.rules.registry import RULES, apply_rule

__all__ = ["RULES", "apply_rule", "elementwise", "layers", "movement", "space"]
