"""The Gymnasium environments: `CNNPrune-v0`, its vectorized form, and that for Stable-Baselines3.

They hold the state of an episode and draw it; what a step does is decided in `process`. They know
nothing of agents. Begin with `cnn_prune.py`.
"""
