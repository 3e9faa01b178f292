"""PPOLagrangian judged where the best is known: limits kept, rewards reached, the frontier met.

Begin with `training.py`.
"""
