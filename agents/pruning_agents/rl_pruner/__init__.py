"""RL-Pruner: a pruning distribution over groups, improved by sampling and a replay buffer.

After "RL-Pruner: Structured Pruning Using Reinforcement Learning for CNN Compression and
Acceleration" (Wang and Kindratenko, arXiv 2411.06463). Knows an environment by its pure transition,
and nothing of networks or images. Begin with `algorithm.py`; `distribution_policy.py` is the
published kind of policy, `groupwise_policy.py` the one that reads the observation.
"""
