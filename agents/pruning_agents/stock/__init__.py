"""Stable-Baselines3's own algorithms on the environments, and their settings.

Begin with `sb3_agents.py`; `hyperparameters/` has a file per algorithm, `rl_zoo/` gives the same to
RL Baselines3 Zoo.
"""
