"""`CNNPruneWorlds-v0`: at each reset another trained network, for policies that are to transfer.

An episode is one of `CNNPrune-v0`, on a network of a pool and under a budget that are drawn;
observations are padded and mean the same in any network. Knows nothing of agents. Begin with
`env.py`; `observation.py` has the features, and the pools are in `pruning_env/tasks/pools`.
"""
