"""Gymnasium wrappers that give the environments the interfaces of other toolkits."""

from pruning_env.wrappers.cost_return import CostReturn
from pruning_env.wrappers.multi_objective import MultiObjectiveReward
from pruning_env.wrappers.pad_groups import PadGroups

__all__ = ["CostReturn", "MultiObjectiveReward", "PadGroups"]
