"""Gymnasium wrappers that give the environments the interfaces of other toolkits.

A cost as a sixth return value, a vector of rewards, a count of evaluations, observations padded for
several networks. They know an environment by its public interface only. Begin with any: each file
is one wrapper. One for a layer at a time is not among them: that is `action="layerwise"`.
Trajectories for offline learning are recorded by `minari.DataCollector` as it is (the extra
`minari`).
"""

from pruning_env.wrappers.cost_return import CostReturn
from pruning_env.wrappers.evaluation_counter import EvaluationCounter
from pruning_env.wrappers.multi_objective import MultiObjectiveReward
from pruning_env.wrappers.pad_groups import PadGroups

__all__ = ["CostReturn", "EvaluationCounter", "MultiObjectiveReward", "PadGroups"]
