"""RL-Pruner: a pruning distribution over groups, improved by sampling and a replay buffer.

After "RL-Pruner: Structured Pruning Using Reinforcement Learning for CNN Compression and
Acceleration" (Wang and Kindratenko, arXiv 2411.06463). Begin with `algorithm.py`.
"""
