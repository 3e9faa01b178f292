"""The faces of the process: Gymnasium's, the vector environment's, Stable-Baselines3's.

They hold the state of an episode and draw it; what a step does is decided in `process`. Know
nothing of agents. Begin with `cnn_prune.py`.
"""
