"""Policies that prune a network they never saw, without one evaluation of it.

One network with shared weights over groups serves all networks and budgets of `CNNPruneWorlds-v0`:
it learns by imitation of what searches found, by PPO, or by the one and then the other. Begin with
`policy.py`; `demonstrations.py` has what is imitated, `learning.py` how.
"""
