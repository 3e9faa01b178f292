"""Searches without a learning agent: what every agent has to beat at equal evaluations.

Each is a function `(env, evaluations, seed) -> SearchResult | None` that never steps the
environment: it branches from the dense network through the pure transition. One candidate is a
whole pruning, judged at its end, and costs one evaluation; repeat visits are free. They need
`action="distribution"`, and know the environment by its dynamics only. Begin with `rules.py`, what
one evaluation is enough for, or with `sampling.py`, random search.
"""

from pruning_agents.baselines.beam import beam_search
from pruning_agents.baselines.cem import cem
from pruning_agents.baselines.hill_climbing import hill_climbing
from pruning_agents.baselines.ranking import global_l1, global_ranking, global_taylor
from pruning_agents.baselines.rules import RULES, best_of_rules, follow_rule, rule_actions
from pruning_agents.baselines.sampling import random_policy, random_policy_accuracies, random_search
from pruning_agents.baselines.sensitivity import sensitivity_greedy
from pruning_agents.baselines.uniform import uniform

__all__ = [
    "RULES",
    "beam_search",
    "best_of_rules",
    "cem",
    "follow_rule",
    "global_l1",
    "global_ranking",
    "global_taylor",
    "hill_climbing",
    "random_policy",
    "random_policy_accuracies",
    "random_search",
    "rule_actions",
    "sensitivity_greedy",
    "uniform",
]
