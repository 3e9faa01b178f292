"""PPO under a limit on the expected cost of an episode, whose price is learned beside the policy.

A second critic predicts costs, and a Lagrange multiplier weighs them against the reward. Knows
nothing of pruning: any environment with `info["cost"]` will do. Begin with `algorithm.py`;
`multiplier.py` is the controller of the price.
"""
