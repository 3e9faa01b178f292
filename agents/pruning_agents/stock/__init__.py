"""Stable-Baselines3's own algorithms on the environments, and their settings.

They know nothing of prunings; a wrapper remembers the best network for them. Begin with
`sb3_agents.py`; `hyperparameters/` has a file per algorithm, `rl_zoo/` gives the same to RL
Baselines3 Zoo, `groupwise.py` is a feature extractor with the same weights for every group.
"""
