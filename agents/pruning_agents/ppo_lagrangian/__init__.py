"""PPO with a cost critic and a Lagrange multiplier: reward under a limit on an episode's cost.

Begin with `algorithm.py`; `multiplier.py` is the controller of the price.
"""
